# One static library per room (src/<room>/*.cc) and, beside it, one test program from its *_test.cc.

enable_testing()
if(RUNG_TESTS)
  find_package(GTest REQUIRED)
endif()

set(RUNG_WARNINGS -Wall -Wextra -Wconversion -Wshadow -Werror)
# vcvtneps2bf16 and friends return vector types whose ABI differs per ISA; they never cross a file.
list(APPEND RUNG_WARNINGS -Wno-psabi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND RUNG_WARNINGS -Wno-restrict)  # g++ 12 warns of std::string's own operator+ (GCC bug 105651)
endif()
# Code says where it fuses: formats are decoded bit for bit, with a rounding after every product.
list(APPEND RUNG_WARNINGS -ffp-contract=off)

set(RUNG_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(RUNG_FLAGS_avx512 ${RUNG_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512)
# g++ 12's own avx512fintrin.h leaves results undefined on purpose and warns about it (GCC bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  list(APPEND RUNG_FLAGS_avx512 -Wno-uninitialized -Wno-maybe-uninitialized)
endif()
set(RUNG_FLAGS_avx512_bf16 ${RUNG_FLAGS_avx512} -mavx512bf16 -mavx512vbmi)
set(RUNG_FLAGS_avx512_vnni ${RUNG_FLAGS_avx512_bf16} -mavx512vnni)

# Headers of libraries that take longer to parse than the files that include them. Every file still
# includes what it uses: a build with CMAKE_DISABLE_PRECOMPILE_HEADERS=ON (./check --all has one) proves it.
set(RUNG_TEST_PRECOMPILE <gtest/gtest.h> <algorithm> <cmath> <filesystem> <fstream> <functional> <map> <random> <string> <vector>)

# rung_room(<folder> [ROOMS room...] [LINK target...] [PRECOMPILE <header>...] [COLD])
# COLD: no loop of this room is worth -O3: it compiles in half the time at -O1, and several files at once
# (RUNG_UNITY=OFF: each alone, for those who change one at a time).
option(RUNG_UNITY "compile cold rooms several files at once" ON)
function(rung_room folder)
  cmake_parse_arguments(ARG "COLD" "" "ROOMS;LINK;PRECOMPILE" ${ARGN})
  string(REPLACE "/" "_" room ${folder})
  set(dir ${CMAKE_SOURCE_DIR}/src/${folder})
  file(GLOB sources CONFIGURE_DEPENDS ${dir}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  set(scope PUBLIC)
  if(sources)
    add_library(rung_${room} STATIC ${sources})
    target_compile_options(rung_${room} PRIVATE ${RUNG_WARNINGS} $<$<AND:$<BOOL:${ARG_COLD}>,$<CONFIG:Release>>:-O1>)
    target_precompile_headers(rung_${room} PRIVATE ${ARG_PRECOMPILE})
    if(ARG_COLD AND RUNG_UNITY)
      set_target_properties(rung_${room} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
    endif()
    foreach(isa avx2 avx512 avx512_bf16 avx512_vnni)
      set(files ${sources})
      list(FILTER files INCLUDE REGEX "_${isa}\\.cc$")
      if(files)
        set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${RUNG_FLAGS_${isa}}")
      endif()
    endforeach()
  else()
    add_library(rung_${room} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(rung_${room} ${scope} ${CMAKE_SOURCE_DIR}/src)
  foreach(other ${ARG_ROOMS})
    target_link_libraries(rung_${room} ${scope} rung_${other})
  endforeach()
  target_link_libraries(rung_${room} ${scope} ${ARG_LINK})

  if(RUNG_TESTS AND tests)
    add_executable(${room}_test ${tests})
    target_compile_options(${room}_test PRIVATE ${RUNG_WARNINGS} $<$<CONFIG:Release>:-O1>)
    target_precompile_headers(${room}_test PRIVATE ${RUNG_TEST_PRECOMPILE} ${ARG_PRECOMPILE})
    if(ARG_COLD AND RUNG_UNITY)
      set_target_properties(${room}_test PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 5)
    endif()
    target_link_libraries(${room}_test PRIVATE rung_${room} GTest::gtest GTest::gtest_main)
    add_test(NAME ${room} COMMAND ${room}_test WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    # Tests share the cores: a spinning thread would stand in the way of the one it waits for.
    set_tests_properties(${room} PROPERTIES ENVIRONMENT OMP_WAIT_POLICY=passive)
  endif()
endfunction()
