# %% [markdown]
# # Zero-shot on tables like CheXpert's and NIH's
#
# You learn how labeled sets, in the form in which they are published, measure a model that was never trained on their
# labels. Research software, not for clinical use.
#
# Synthetic radiographs stand in for patients; the tables have the columns, values and folders of the real ones. With
# those on your disk, the last cells are all you need.

# %%
import csv
from itertools import count, islice
from pathlib import Path

import medclip
import toy
from medclip.data.phantoms.cases import phantom

out = toy.new_folder("zero_shot")
FINDINGS = ["Mass", "Cyst", "Calcification"]
cases = (phantom(number, seed=1) for number in count())
radiographs = list(
    islice((pair for pair in cases if pair.labels["modality"] == "radiograph"), 40)
)
toy.show(
    [pair.image for pair in radiographs[:3]],
    [pair.labels["finding"] for pair in radiographs[:3]],
)

# %% [markdown]
# ## CheXpert
#
# `valid.csv` has a column for each finding: 1 is a finding, 0 and blank are not. An image with −1, uncertain, is left
# out of what is measured, and counted.


# %%
def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as a CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


chexpert, rows = out / "CheXpert-v1.0-small", []
for number, pair in enumerate(radiographs):
    name = f"valid/patient{number:05}/study1/view1_frontal.png"
    (chexpert / name).parent.mkdir(parents=True)
    (chexpert / name).write_bytes(pair.image)
    row = {
        "Path": f"{chexpert.name}/{name}",
        "Sex": "Unknown",
        "No Finding": str(float(pair.labels["finding"] == "normal")),
    }
    row |= {
        finding: "1.0" if pair.labels["finding"] == finding.lower() else ""
        for finding in FINDINGS
    }
    rows.append(row | ({"Mass": "-1.0"} if number == 0 else {}))
write_table(chexpert / "valid.csv", rows)

medclip.evaluate(toy.model(), chexpert, "zero-shot", classes=FINDINGS)

# %% [markdown]
# ## NIH ChestX-ray14
#
# `Data_Entry_2017.csv` has the findings in one column, separated by `|`; `test_list.txt` names the test split.

# %%
nih, rows = out / "nih", []
(nih / "images").mkdir(parents=True)
for number, pair in enumerate(radiographs):
    (nih / "images" / f"{number:08}_000.png").write_bytes(pair.image)
    finding = pair.labels["finding"].capitalize().replace("Normal", "No Finding")
    rows.append(
        {
            "Image Index": f"{number:08}_000.png",
            "Finding Labels": finding,
            "Patient ID": str(number),
        }
    )
write_table(nih / "Data_Entry_2017.csv", rows)
(nih / "test_list.txt").write_text("\n".join(row["Image Index"] for row in rows))

results = medclip.evaluate(toy.model(), nih, "zero-shot", classes=FINDINGS)
results

# %% [markdown]
# The prompts decide such numbers. The results hold all of them, those of four other projects too, and a hash of the
# items and labels: equal hashes, equal test.

# %%
results.facts["split_sha256"][:12], results.below("protocols")
