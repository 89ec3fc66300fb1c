"""Lets torchvision 0.28.0 import beside a torch for CPUs, where its compiled operators cannot load."""

import sysconfig
from pathlib import Path

_SHIM = """import torch as _torch
_operators = _torch.library.Library("torchvision", "FRAGMENT")
_operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
# end of shim
"""

if __name__ == "__main__":
    module = Path(sysconfig.get_paths()["purelib"]) / "torchvision" / "__init__.py"
    text = module.read_text(encoding="utf-8")
    if "# end of shim\n" not in text:
        module.write_text(_SHIM + text, encoding="utf-8")
