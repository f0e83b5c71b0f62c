# With PC_JOIN several source files of a layer are compiled as one, which takes a third from the time of a whole build. Apart stay
# kernels for CUDA, and files that call things alike by design: operators, kinds of graphs and of data, tests.
option(PC_JOIN "Compile several source files as one: a whole build is faster, the next after a change slower" OFF)
function(pc_join target)
  if(PC_JOIN)
    get_target_property(apart ${target} SOURCES)
    list(FILTER apart INCLUDE REGEX "^(ops|data)/|[.]cu$")
    set_source_files_properties(${apart} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 5)
  endif()
endfunction()
