#!/usr/bin/env bash
# SGLang 0.5.23 without a GPU, in an environment of its own: about 3 GB, a few minutes.
# usage: tests/sglang/install.sh VENV
#
# PyPI's torch for Linux runs on a CPU too. torchvision's compiled operators and the sgl_kernel wheel do not: the one is
# patched to import without them, the other replaced by stand-ins. Nothing of either is called by a text model on a CPU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:?usage: install.sh VENV}
python=${PYTHON:-python3}

rm -rf "$venv"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
"${pip[@]}" torch==2.13.0
"${pip[@]}" torch==2.13.0 -r "$here/requirements.txt"
"${pip[@]}" --no-deps torchvision==0.28.0 sglang==0.5.23
"$venv/bin/python" "$here/patch_torchvision.py"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$site/sgl_kernel"
cp "$here/sgl_kernel_stand_in.py" "$site/sgl_kernel/__init__.py"
"$venv/bin/python" "$here/make_model.py" "$venv/tiny-model"
