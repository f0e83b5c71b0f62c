# Decides whether the CUDA twins are built: PC_WITH_CUDA is the answer.
foreach(option PC_CUDA PC_CUDNN)
  if(NOT "${${option}}" MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "${option}=${${option}} should be AUTO (where it is found), ON or OFF.")
  endif()
endforeach()
set(PC_WITH_CUDA OFF)
if(NOT PC_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)  # where the toolkit installs itself; often not on PATH
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit 12.1 REQUIRED)  # arguments of a kernel over 4 KiB
    set(PC_WITH_CUDA ON)
  elseif(PC_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PC_CUDA=ON, but no CUDA compiler was found. Install the CUDA Toolkit, or set CUDACXX to nvcc, "
                        "or configure with -DPC_CUDA=OFF.")
  endif()
endif()
message(STATUS "CUDA kernels: ${PC_WITH_CUDA} (PC_CUDA=${PC_CUDA})")

# cuDNN 9 or later, for convolutions with narrow operands: PC_WITH_CUDNN is the answer.
set(PC_WITH_CUDNN OFF)
if(PC_WITH_CUDA AND NOT PC_CUDNN STREQUAL "OFF")
  find_path(PC_CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(PC_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_DIR}/../lib)
  if(PC_CUDNN_INCLUDE AND PC_CUDNN_LIBRARY)
    set(PC_WITH_CUDNN ON)
  endif()
endif()
if(PC_CUDNN STREQUAL "ON" AND NOT PC_WITH_CUDNN)
  message(FATAL_ERROR "PC_CUDNN=ON, but cuDNN 9 was not found, or there is no CUDA. Install it beside the CUDA Toolkit, or "
                      "name it with -DPC_CUDNN_INCLUDE=... (the folder of cudnn_graph.h) and -DPC_CUDNN_LIBRARY=..., or "
                      "configure with -DPC_CUDNN=OFF.")
endif()
message(STATUS "cuDNN: ${PC_WITH_CUDNN} (PC_CUDNN=${PC_CUDNN})")
