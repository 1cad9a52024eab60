"""The pictures that a training keeps."""

import numpy as np
import torch
from PIL import Image

from ageflow.training.metrics import save_faces


def test_faces_stand_row_by_row_with_black_between(tmp_path):
    images = torch.randint(1, 256, (13, 3, 32, 32), dtype=torch.uint8)
    save_faces(images, tmp_path / "new" / "faces.png", columns=5)
    sheet = np.array(Image.open(tmp_path / "new" / "faces.png"))
    assert sheet.shape == (34 * 3 + 2, 34 * 5 + 2, 3)
    for number, face in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = 2 + 34 * (number // 5), 2 + 34 * (number % 5)
        np.testing.assert_array_equal(sheet[top : top + 32, left : left + 32], face)
        sheet[top : top + 32, left : left + 32] = 0
    assert not sheet.any(), "black between, around, and where no face is left"
