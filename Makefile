# Graft: everything a person types. CMake does the work; see CMakePresets.json.
.PHONY: help demo test build format lint screenshots sanitize sanitize-thread fuzz soak mutate neon bench install uninstall interop clean

PREFIX ?= /usr/local
BUILD := build
PYTHON = GRAFT_BUILD=$(CURDIR)/$(BUILD) GRAFT_SOURCE=$(CURDIR) PYTHONPATH=$(CURDIR)/tests /usr/bin/python3 -B
SOURCES = $(shell find include src python tests bench examples -name '*.h' -o -name '*.cpp')

help:
	@echo "make demo       set up, build, and run the whole story offline"
	@echo "make test       set up, build, and run all tests"
	@echo "make build      set up and build (the program is build/bin/graft)"
	@echo "make install    install to PREFIX (default /usr/local); make uninstall removes it again"
	@echo "make format | lint | sanitize | sanitize-thread | fuzz | soak | mutate | neon | bench | screenshots | interop | clean: see CONTRIBUTING.md"

build: deps-build
	cmake --preset release -DGRAFT_BUILD_TESTS=OFF
	cmake --build $(BUILD)

demo: build
	$(BUILD)/bin/graft demo --output $(BUILD)/demo --force

test: deps-test
	cmake --preset release -DGRAFT_BUILD_TESTS=ON -DGRAFT_BUILD_PYTHON=ON
	cmake --build $(BUILD)
	ctest --test-dir $(BUILD) --output-on-failure --parallel 2

format: deps-lint
	@clang-format -i $(SOURCES)

# LibTorch 1.13's headers are not C++20 for clang 14: training is compiled by g++ alone.
lint: deps-lint
	@clang-format --dry-run --Werror $(SOURCES)
	cmake --preset release -DGRAFT_BUILD_TESTS=ON -DGRAFT_BUILD_PYTHON=ON
	cmake --build $(BUILD) --target graft_cli
	run-clang-tidy -quiet -p $(BUILD) '/(src/(base|cli|dataset|demo|engine|features|image|model|network|recipe|report|run|export|serve|weights)|python/src)/(?!train_main)[a-z0-9_]+\.cpp$$'

sanitize: deps-test
	cmake --preset sanitize
	cmake --build build-sanitize
	ctest --test-dir build-sanitize --output-on-failure

# Everything that has threads of its own; LibTorch's OpenMP is not made for ThreadSanitizer.
sanitize-thread: deps-test
	cmake --preset sanitize-thread
	cmake --build build-sanitize-thread --target graft_tests engine_fuzz
	build-sanitize-thread/bin/graft_tests --gtest_filter='Engine.*:EveryTarget*:Thread*:Classifier*:RequestQueue*:*Cache.*:Prefix*'
	build-sanitize-thread/tests/tools/engine_fuzz 60

# Every fuzz target for SECONDS_EACH under libFuzzer with address and undefined-behaviour sanitizers.
fuzz: deps-fuzz
	cmake --preset fuzz
	cmake --build build-fuzz --target fuzzers
	scripts/fuzz.sh build-fuzz $(or $(SECONDS_EACH),60)

# The tutorial's pictures, docs/images.
screenshots: deps-test
	cmake --preset release -DGRAFT_BUILD_TESTS=ON
	cmake --build $(BUILD)
	/usr/bin/python3 -B scripts/screenshots.py $(BUILD)

# Kills, full disks and damaged files over whole commands, for MINUTES.
soak: deps-test
	cmake --preset release -DGRAFT_BUILD_TESTS=ON
	cmake --build $(BUILD)
	$(PYTHON) tests/robustness/soak.py --minutes $(or $(MINUTES),20)

# Whole commands on mutations of every kind of file: COUNT of each.
mutate: deps-test
	cmake --preset release -DGRAFT_BUILD_TESTS=ON
	cmake --build $(BUILD)
	$(PYTHON) tests/robustness/mutate.py --count $(or $(COUNT),1000)

# Kernels and engine compiled for 64-bit ARM, and the kernels' tests run in an emulator.
neon: deps-neon
	scripts/check-neon.sh $(BUILD)

bench: deps-bench
	cmake --preset release -DGRAFT_BUILD_BENCH=ON
	cmake --build $(BUILD)
	bench/run.sh $(BUILD)

install: deps-build
	cmake --preset release -DGRAFT_BUILD_TESTS=OFF -DCMAKE_INSTALL_PREFIX=$(abspath $(PREFIX))
	cmake --build $(BUILD)
	cmake --install $(BUILD)

uninstall:
	@test -f $(BUILD)/install_manifest.txt || { echo "nothing installed from $(BUILD)"; exit 1; }
	xargs rm -vf < $(BUILD)/install_manifest.txt

# Real Keras, PyTorch, ONNX Runtime and others, in an environment outside the source tree.
interop: deps-interop
	cmake --preset release -DGRAFT_BUILD_TESTS=ON
	cmake --build $(BUILD) --target interop_programs
	scripts/interop.sh $(BUILD)

clean:
	rm -rf build build-sanitize build-sanitize-thread build-fuzz build-cp*

deps-%:
	@scripts/install-deps.sh $*
