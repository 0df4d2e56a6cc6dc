# CUDA: kernels/**/*.cu and engine/device/cuda*.cpp are compiled once; the same objects are linked with the real
# CUDA libraries (NVL_CUDA=real, `make cuda`) or with vgpu, which has the same symbols and executes the PTX inside
# the objects on the CPU (bin/vgpu/NAME).
#
# nvcc is called by rules of our own: which architectures a file is for depends on its name, and CMake's CUDA
# language would link its own runtime library.
set(VGPU_COMMANDS forward generate evaluate pretrain sft)

function(vgpu_own_tests) # until it is known that they can be built
endfunction()

find_program(NVL_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NVL_CUDA STREQUAL "off" OR NOT NVL_NVCC)
  if(NVL_CUDA STREQUAL "real")
    message(FATAL_ERROR "make cuda: nvcc not found; install the CUDA toolkit (12.8 or later), or put it in PATH")
  elseif(NOT NVL_CUDA STREQUAL "off")
    message(STATUS "nvcc not found: no CUDA programs and none of their tests")
  endif()
  return()
endif()
get_filename_component(cuda_home ${NVL_NVCC} REALPATH)
get_filename_component(cuda_home ${cuda_home} DIRECTORY)
get_filename_component(cuda_home ${cuda_home} DIRECTORY)
find_path(NVL_CUDA_INCLUDE cuda_runtime.h HINTS ${cuda_home}/include ${cuda_home}/targets/x86_64-linux/include REQUIRED)

# --no-compress: vgpu finds the PTX as text. -lineinfo: its reports and counters name source lines.
set(flags -std=c++20 -O3 --no-compress -lineinfo -Xptxas -warn-spills -Xcompiler -Wall,-g1 -I${CMAKE_SOURCE_DIR})
set(launcher)
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(launcher ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()

# cuda_object(OUT FILE): adds the object of FILE to the list OUT; files named *_sm90a.cu are for 90a alone.
function(cuda_object out file)
  set(codes)
  foreach(arch ${NVL_CUDA_ARCHS})
    if(arch STREQUAL "90a" OR NOT file MATCHES "_sm90a\\.cu$")
      list(APPEND codes -gencode arch=compute_${arch},code=[compute_${arch},sm_${arch}])
    endif()
  endforeach()
  if(NOT codes)
    return()
  endif()
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${file})
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  get_filename_component(folder ${object} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(OUTPUT ${object}
                     COMMAND ${launcher} ${NVL_NVCC} ${flags} ${codes} -MD -MF ${object}.d -c ${file} -o ${object}
                     DEPENDS ${file} DEPFILE ${object}.d COMMENT "Building CUDA object ${name}.o" VERBATIM)
  set(${out} ${${out}} ${object} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS kernels/*.cu engine/device/*.cu)
set(cuda_objects)
foreach(file ${cuda_sources})
  cuda_object(cuda_objects ${file})
endforeach()
add_custom_target(cuda_kernels DEPENDS ${cuda_objects})

# hwcheck and tests/vgpu share kernels of single instructions.
cuda_object(hwcheck_objects ${CMAKE_SOURCE_DIR}/tools/hwcheck/instructions.cu)
set_source_files_properties(${hwcheck_objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
file(GLOB hwcheck_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tools/hwcheck/*.cpp)

# Consumers link every object, since kernels register themselves.
file(GLOB backend CONFIGURE_DEPENDS engine/device/cuda*.cpp)
add_library(nvl_cuda_backend OBJECT ${backend})
target_include_directories(nvl_cuda_backend SYSTEM PUBLIC ${NVL_CUDA_INCLUDE})
add_library(nvl_cuda INTERFACE)
target_sources(nvl_cuda INTERFACE $<TARGET_OBJECTS:nvl_cuda_backend> ${cuda_objects})
add_dependencies(nvl_cuda cuda_kernels)
set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)

if(NVL_CUDA STREQUAL "real")
  set(where HINTS ${cuda_home}/lib64 ${cuda_home}/targets/x86_64-linux/lib REQUIRED)
  find_library(NVL_CUDART cudart ${where})
  find_library(NVL_CUBLASLT cublasLt ${where})
  find_library(NVL_NCCL nccl ${where})
  add_library(nvl_cuda_real INTERFACE)
  target_link_libraries(nvl_cuda_real INTERFACE nvl_cuda ${NVL_CUDART} ${NVL_CUBLASLT} ${NVL_NCCL})
  nvl_program(hwcheck ${hwcheck_sources} ${hwcheck_objects})
  target_include_directories(hwcheck SYSTEM PRIVATE ${NVL_CUDA_INCLUDE})
  if(NOT NVL_TESTS) # hwcheck runs op_tests, which lies beside it
    find_package(GTest REQUIRED)
    nvl_program(op_tests tests/ops.cpp LAYERS nvl_engine nvl_kernels)
    target_link_libraries(op_tests PRIVATE GTest::gtest)
  endif()
  add_dependencies(hwcheck op_tests)
  return()
endif()

file(GLOB_RECURSE vgpu_sources CONFIGURE_DEPENDS tools/vgpu/*.cpp)
if(NOT vgpu_sources)
  return()
endif()
add_library(vgpu STATIC ${vgpu_sources})
target_include_directories(vgpu SYSTEM PUBLIC ${NVL_CUDA_INCLUDE})
target_link_libraries(vgpu PUBLIC Threads::Threads)

# vgpu_program(NAME SOURCES [LAYERS ...]): bin/vgpu/NAME, as nvl_program but with CUDA on the virtual GPU
function(vgpu_program name)
  nvl_program(vgpu_${name} ${ARGN})
  target_link_libraries(vgpu_${name} PRIVATE nvl_cuda vgpu)
  set_target_properties(vgpu_${name} PROPERTIES OUTPUT_NAME ${name}
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/vgpu)
endfunction()

vgpu_program(hwcheck ${hwcheck_sources} ${hwcheck_objects})

# tests/vgpu: the virtual GPU itself, with kernels of its own
function(vgpu_own_tests)
  set(objects ${hwcheck_objects})
  file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/vgpu/*.cu)
  foreach(file ${kernels})
    cuda_object(objects ${file})
  endforeach()
  add_executable(vgpu_tests ${ARGN} tools/hwcheck/goldens.cpp ${objects})
  if(objects)
    set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  endif()
  target_compile_definitions(vgpu_tests PRIVATE VGPU_TESTS="${CMAKE_SOURCE_DIR}/tests/vgpu")
  target_link_libraries(vgpu_tests PRIVATE vgpu GTest::gtest_main)
  # CuTe's layouts, a second opinion on fragments: pip install nvidia-cutlass
  find_program(NVL_PYTHON python3)
  if(NVL_PYTHON AND NOT NVL_CUTE_INCLUDE)
    execute_process(COMMAND ${NVL_PYTHON} -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"
                    OUTPUT_VARIABLE packages OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_path(NVL_CUTE_INCLUDE cute/tensor.hpp HINTS ${packages}/cutlass_library/source/include)
  if(NVL_CUTE_INCLUDE)
    set_source_files_properties(${CMAKE_SOURCE_DIR}/tests/vgpu/cute.cpp PROPERTIES
                                COMPILE_OPTIONS "-isystem;${NVL_CUTE_INCLUDE};-isystem;${NVL_CUDA_INCLUDE}/cccl;-DVGPU_CUTE;-w")
  endif()
  gtest_discover_tests(vgpu_tests DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
endfunction()
