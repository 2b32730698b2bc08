"""Videos of strangers."""

import numpy as np
import pytest

from litevit.jobs.videos import read_video

av = pytest.importorskip("av", reason="writes a video (the extra 'video')")


def test_a_title_in_another_encoding_hides_no_video(tmp_path):
    file = tmp_path / "a.avi"
    with av.open(str(file), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8))), *stream.encode()):
            container.mux(packet)
    content = file.read_bytes()
    assert content.count(b"TITLE") == 1
    file.write_bytes(content.replace(b"TITLE", b"\xe4\xf6\xfc\xdf\xff"))
    assert [image.size for image, _ in read_video(file)] == [(48, 32)]
