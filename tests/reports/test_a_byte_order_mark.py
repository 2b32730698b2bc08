"""Class lists that an editor on Windows has saved began with an invisible character in the first class's name."""

import json

import pytest

from litevit.data.class_names import read_class_list


@pytest.mark.parametrize("content", ["cat\r\ndog\r\n", json.dumps(["cat", "dog"])])
def test_class_lists(tmp_path, content):
    path = tmp_path / ("names.json" if content[0] == "[" else "names.txt")
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_class_list(path).names == ("cat", "dog")


def test_predict_with_names(tmp_path, photos, litevit):
    (tmp_path / "names.txt").write_bytes("\ufeffK\u00e4fer\r\nHund\r\n\r\n".encode())
    picture = photos / "val" / "bee" / "val0.png"
    options = ("--model", "lvt", "--weights", "none", "--size", 32, "--json", "--names", tmp_path / "names.txt")
    code, out, _ = litevit("predict", picture, *options)
    assert code == 0
    assert {guess["name"] for guess in json.loads(out)[0]["guesses"]} == {"K\u00e4fer", "Hund"}
