"""Labeled images for tests: dark, middle and bright ones, in each form that they may have."""

from support.material import draw_image, image_bytes

CLASSES = {"dark": 0, "middle": 20, "bright": 40}


def class_image(name, nth):
    return image_bytes(draw_image(CLASSES[name] + nth))


def write_table(folder, rows, header="file,label,split"):
    """`labels.csv` with these lines, and images/ with an image for each name of a class and a number (dark_3.jpg)."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for row in rows:
        file = row.split(",")[0]
        name, _, nth = file.removesuffix(".jpg").partition("_")
        if name in CLASSES:
            (folder / "images" / file).write_bytes(class_image(name, int(nth)))
    return folder


def split_rows(classes=("dark", "bright"), train=6, test=4):
    return [
        f"{name}_{nth}.jpg,{name},{'train' if nth < train else 'test'}"
        for nth in range(train + test)
        for name in classes
    ]


def write_folders(folder, counts, below=""):
    """A folder a class, with so many images."""
    for name, count in counts.items():
        (folder / below / name).mkdir(parents=True, exist_ok=True)
        for nth in range(count):
            (folder / below / name / f"{nth}.jpg").write_bytes(class_image(name, nth))
    return folder


def relabel(data, label):
    """The prepared dataset `data`, changed in place: `label(row)` is what each row's labels become."""
    from support.handmade_datasets import change_rows

    return change_rows(data, lambda row: row | {"labels": list(label(row).items())})
