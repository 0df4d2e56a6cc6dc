# A thin front for CMake. `make` builds, `make test` proves, `make speedrun` trains a model from nothing.
BUILD ?= build
JOBS  ?= $(shell nproc)
CMAKE_FLAGS ?=

.PHONY: all help setup build test test-full sanitize bench speedrun chat-smollm2 cuda style format clean

all: build

help:
	@echo "make              build everything into $(BUILD)/bin"
	@echo "make setup        install what a fresh Debian or Ubuntu machine lacks"
	@echo "make test         setup, build, all tests"
	@echo "make test-full    the tests, the sanitizer builds and the slow sweeps"
	@echo "make speedrun     from nothing to a model that chats: corpus, tokenizer, pretraining, tuning, report"
	@echo "make chat-smollm2 obtain SmolLM2-135M-Instruct and chat with it"
	@echo "make bench        every op against the floors of this machine, and a whole training step"
	@echo "make cuda         everything with CUDA into $(BUILD)-cuda/bin: --device cuda (needs nvcc and a GPU to run on)"
	@echo "make style        formatting, file lengths, include directions;  make format  applies clang-format"

setup:
	@bash tools/setup.sh

$(BUILD)/build.ninja: CMakeLists.txt
	@cmake -S . -B $(BUILD) -G Ninja $(CMAKE_FLAGS) >/dev/null

build: $(BUILD)/build.ninja
	@cmake --build $(BUILD) -j $(JOBS)

test: setup
	@$(MAKE) --no-print-directory build
	@cd $(BUILD) && ctest --output-on-failure -j 2

# AddressSanitizer and UndefinedBehaviorSanitizer over the unit tests: parsers, engine, kernels' helpers.
sanitize: setup
	@cmake -S . -B $(BUILD)-asan -G Ninja -DNVL_SANITIZE=address,undefined >/dev/null
	@cmake --build $(BUILD)-asan -j $(JOBS) --target unit_tests
	@$(BUILD)-asan/bin/unit_tests --gtest_brief=1

test-full: test sanitize style
	@bash tests/full.sh $(BUILD)/bin

bench: build
	@$(BUILD)/bin/bench_ops
	@$(BUILD)/bin/bench_step --model gpt2-124m --batch 4 --sequence 64 --steps 6

speedrun: setup
	@$(MAKE) --no-print-directory build
	@bash tools/speedrun.sh $(BUILD)/bin

chat-smollm2: setup
	@$(MAKE) --no-print-directory build
	@bash tools/get_smollm2.sh
	@$(BUILD)/bin/chat --model models/cache/SmolLM2-135M-Instruct.Q4_1.gguf

# CUDA kernels for every architecture, linked with the CUDA libraries. Without a GPU: $(BUILD)/bin/vgpu/NAME.
cuda: setup
	@cmake -S . -B $(BUILD)-cuda -G Ninja -DNVL_CUDA=real "-DNVL_CUDA_ARCHS=80;90a;100" -DNVL_TESTS=OFF $(CMAKE_FLAGS) >/dev/null
	@cmake --build $(BUILD)-cuda -j $(JOBS)

style:
	@bash .ci/check_style.sh
format:
	@clang-format -i $$(git ls-files -- '*.cpp' '*.h' '*.cu' '*.cuh')

clean:
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-cuda
