"""The commands, each a typed value whose `run` does the work; a stage is imported when it runs."""
