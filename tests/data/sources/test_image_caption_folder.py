"""Folders are walked in the order of their paths, one at a time."""

from medclip.data.sources.image_caption_folder import list_images


def test_images_come_in_the_order_of_their_paths(tmp_path):
    for place in ("b/2.png", "a.b/1.png", "a/9.png", "a.png", "a/b/1.png", "A.PNG", "a-b/3.png", "c.txt", "b.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"")
    (tmp_path / "z").symlink_to(tmp_path)
    wanted = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() == ".png" and "z" not in path.parts)
    assert list(list_images(tmp_path)) == wanted
