"""medclip: from radiology image-caption pairs to a measured, searchable CLIP model. Not for clinical use."""

__version__ = "0.1.0"
NOT_CLINICAL = "Research software. Not a medical device, not for clinical use."
