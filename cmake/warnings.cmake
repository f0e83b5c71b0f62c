# pc_options: what every target of ours is compiled with.
add_library(pc_options INTERFACE)
target_compile_features(pc_options INTERFACE cxx_std_20)

# GCC 12 sees overlaps in std::string that are none (its bug 105651): no -Wrestrict.
# Argument structs are filled by name, and what is left out has its default: no -Wmissing-field-initializers.
# -ffp-contract=off, --fmad=false: a value is the same wherever a formula is inlined; products that should be fused say so
# (std::fma, Eigen); a target with PC_FUSED lets them fuse. The two -fno flags let loops over <cmath>-like formulas vectorise; they change no value.
set(pc_cxx_flags -Wall -Wextra -Wpedantic -Wnon-virtual-dtor -Woverloaded-virtual
    -Wno-missing-field-initializers -Wno-restrict -Werror -fopenmp-simd
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
if(NOT PC_JOIN)  # files joined hide one another's names
  list(APPEND pc_cxx_flags -Wshadow)
endif()
if(PC_ARCH)
  list(APPEND pc_cxx_flags -march=${PC_ARCH})
endif()
# GCC 12 takes what its own functions for AVX-512 leave open for a mistake (its bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND PC_ARCH AND NOT PC_ARCH MATCHES "x86-64-v[23]")
  list(APPEND pc_cxx_flags -Wno-uninitialized -Wno-maybe-uninitialized)
endif()
if(PC_SANITIZE)
  list(APPEND pc_cxx_flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(pc_options INTERFACE -fsanitize=address,undefined)
endif()
string(REPLACE ";" "," pc_nvcc_host_flags "-Wall;-Wextra;-Wno-missing-field-initializers;-Werror")
target_compile_options(pc_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${pc_cxx_flags}>"
  # CMake 3.25 does not know CUDA20, so the standard is passed by hand
  "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20$<$<NOT:$<BOOL:$<TARGET_PROPERTY:PC_FUSED>>>:;--fmad=false>;--extended-lambda;--expt-relaxed-constexpr;-Xcompiler=${pc_nvcc_host_flags}>")
