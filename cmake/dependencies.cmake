# Everything here is a Debian package; scripts/bootstrap installs them.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)  # dense products on the CPU
find_package(HDF5 REQUIRED COMPONENTS C)     # checkpoints and run.h5
find_package(yaml-cpp REQUIRED)              # configs
find_package(CLI11 REQUIRED)                 # the command line
find_package(spdlog REQUIRED)                # log lines, with fmt for text
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)          # metrics.jsonl and --json
find_package(PNG REQUIRED)                    # pictures of what a network answers
find_package(ZLIB REQUIRED)                  # .gz data
find_package(LibLZMA REQUIRED)               # .xz data
find_package(EXPAT REQUIRED)                 # GraphML
if(PC_BUILD_TESTS)
  find_package(doctest REQUIRED)
endif()
