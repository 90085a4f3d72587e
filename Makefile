# Every target sets up what it needs; `make help` lists them.

# Another Python for .venv than the first suitable one found: make setup PYTHON=/path/to/python
PYTHON ?=
# Another Detectron2 for the tests than .venv's: make test DETECTRON2=/path/to/a/checkout, which
# needs no build. The tests use a copy, with the configs where Detectron2's setup.py puts them.
DETECTRON2 ?=
# Fewer tests: make test TESTS=tests/test_config.py
TESTS ?= tests

venv := .venv/bin
quickstart := output/quickstart
video := output/quickstart-video
# On a CPU, two processes with half of the cores each use them better than one with all of them.
processes := $(if $(wildcard /dev/nvidia0),,--num-gpus 2 MODEL.DEVICE cpu)

.PHONY: help setup test lint docs bench quickstart quickstart-video

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /make \1\t/p' Makefile | expand -t 23

setup: .venv/setup.stamp  ## make .venv with everything in it, if that has not been done

# An editable installation knows its folder, so a moved checkout is set up again, and one whose
# Python is gone.
ifneq ($(CURDIR),$(shell test -x $(venv)/python && cat .venv/setup.stamp 2>/dev/null))
.PHONY: .venv/setup.stamp
endif

.venv/setup.stamp: pyproject.toml constraints.txt tools/provision_detectron2.py tools/setup_env.py
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec "$$python" tools/setup_env.py; \
	  fi; \
	done; \
	echo "error: $(or $(PYTHON),python3) is not Python 3.11 or newer: install one, or name one" \
	  "with PYTHON=/path/to/python" >&2; exit 1

test: setup  ## run every test, or TESTS=FILES; against another Detectron2 with DETECTRON2=CHECKOUT
ifdef DETECTRON2
	rm -rf output/detectron2 && mkdir -p output/detectron2
	cp -RL "$(DETECTRON2)/detectron2" output/detectron2
	cp -RL "$(DETECTRON2)/configs" output/detectron2/detectron2/model_zoo
endif
	OMP_NUM_THREADS=1 $(if $(DETECTRON2),PYTHONPATH="$(CURDIR)/output/detectron2:$$PYTHONPATH") \
	  $(venv)/python -m pytest $(TESTS)

lint: setup  ## check style, types, words and which module may import which
	$(venv)/ruff check .
	$(venv)/ruff format --check .
	$(venv)/mypy
	$(venv)/lint-imports
	$(venv)/python tools/check_words.py

# Not with --quiet, which hides warnings from --strict.
docs: setup  ## build the documentation site into output/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore $(venv)/mkdocs build --strict
	@echo "site: output/site/index.html"

bench: setup  ## run the benchmarks, each as a table of ratios
	$(venv)/python tools/benchmark.py

# Waiting threads that spin cost minutes as soon as anything else runs on the machine, and memory
# that each operation gives back costs a fifth of the time.
environment := OMP_WAIT_POLICY=PASSIVE \
  MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864

quickstart: setup  ## train, evaluate and draw on the embedded dataset
	$(environment) $(venv)/python train_net.py --config-file configs/quickstart.yaml \
	  $(processes) OUTPUT_DIR $(quickstart)
	$(venv)/python demo/demo.py --config-file $(quickstart)/config.yaml \
	  --input nl_shapes_val:6 --output $(quickstart)/demo \
	  --opts MODEL.WEIGHTS $(quickstart)/model_final.pth
	@echo "numbers: $(quickstart)/metrics.json   images: $(quickstart)/demo"

# The same network without its block is trained too: how it fails at the relations is the point.
quickstart-video: setup  ## the same for video: train, evaluate and draw on the embedded clips
	for run in "$(video)" "$(video)/without-block MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS [[],[],[],[]]"; do \
	  $(environment) $(venv)/python train_net.py \
	    --config-file configs/quickstart_video.yaml $(processes) OUTPUT_DIR $$run || exit; \
	done
	$(venv)/python demo/demo.py --config-file $(video)/config.yaml \
	  --video-input nl_clips_val:10 --output $(video)/demo \
	  --opts MODEL.WEIGHTS $(video)/model_final.pth
	$(venv)/python tools/visualize_attention.py --config-file $(video)/config.yaml \
	  --input nl_clips_val:10 --output $(video)/attention \
	  --opts MODEL.WEIGHTS $(video)/model_final.pth
	@echo "numbers: $(video)/metrics.json   without the block: $(video)/without-block/metrics.json"
	@echo "videos: $(video)/demo   attention: $(video)/attention/index.html"
