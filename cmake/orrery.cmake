# One place for flags; every target goes through these functions.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

add_library(orr_plain_flags INTERFACE)
target_compile_options(orr_plain_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion
  -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wswitch-enum -Wformat=2 -Werror
  -Wno-gnu-zero-variadic-macro-arguments -Wno-unknown-warning-option
  -fno-common -fno-omit-frame-pointer -fPIC)
target_compile_definitions(orr_plain_flags INTERFACE _GNU_SOURCE)
target_include_directories(orr_plain_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)
add_library(orr_flags INTERFACE)
target_link_libraries(orr_flags INTERFACE orr_plain_flags)
target_compile_options(orr_flags INTERFACE -fvisibility=hidden)
if(ORR_SANITIZE)
  target_compile_options(orr_flags INTERFACE -fsanitize=${ORR_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(orr_flags INTERFACE -fsanitize=${ORR_SANITIZE})
endif()

if(ORR_FUZZ)
  target_compile_options(orr_flags INTERFACE -fsanitize=fuzzer-no-link)   # coverage of all that a fuzz target calls
endif()

# orr_library(name SOURCES a.c b.c [LINKS ...])        static library of this folder
function(orr_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PRIVATE orr_flags PUBLIC ${A_LINKS})
endfunction()

# orr_program(name SOURCES ... [LINKS ...])            executable in <build>/bin
function(orr_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE orr_flags ${A_LINKS})
endfunction()

# orr_preloaded(name SOURCES ... MAP exports.map [LINKS ...])   shared library in <build>/lib/rank that unmodified programs
#   preload: it exports what MAP lists and nothing else, and has no sanitizer in any build. Beside it, others find it by $ORIGIN.
function(orr_preloaded name)
  cmake_parse_arguments(A "" "MAP" "SOURCES;LINKS" ${ARGN})
  add_library(${name} SHARED ${A_SOURCES})
  target_link_libraries(${name} PRIVATE orr_plain_flags ${A_LINKS})
  target_compile_options(${name} PRIVATE -fno-semantic-interposition $<$<CONFIG:Debug>:-O1>)
  target_link_options(${name} PRIVATE -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/${A_MAP} -Wl,-Bsymbolic -Wl,-z,defs)
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${A_MAP}
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/rank BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN")
  add_dependencies(workloads ${name})
endfunction()

add_custom_target(kernel_tests)   # all that carries the label kernel: what `make test` also builds under TSan

# orr_test(name SOURCES tests/unit/test_x.c [LINKS ...] [INCLUDES dirs] [LABELS unit] [TIMEOUT 60] [ARGS ...] [ENV A=b ...])
#   paths are relative to the project; one ctest entry. LABELS: unit lint sim fuzz conformance integration kernel
function(orr_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LINKS;INCLUDES;LABELS;ARGS;ENV" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  list(TRANSFORM A_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR} ${A_INCLUDES})
  target_link_libraries(${name} PRIVATE orr_flags ${A_LINKS} cmocka)
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 60)
  endif()
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}" ENVIRONMENT "${A_ENV}")
  if("kernel" IN_LIST A_LABELS)
    add_dependencies(kernel_tests ${name})
  endif()
endfunction()

# orr_fuzz(name SOURCES tests/fuzz/fuzz_x.c [LINKS ...])
#   with ORR_FUZZ: a libFuzzer target. Always: a ctest that replays tests/fuzz/corpus/<name>/ through the same function.
function(orr_fuzz name)
  cmake_parse_arguments(A "" "" "SOURCES;LINKS" ${ARGN})
  list(TRANSFORM A_SOURCES PREPEND ${PROJECT_SOURCE_DIR}/)
  if(ORR_FUZZ)
    add_executable(${name} ${A_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE orr_flags ${A_LINKS})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endif()
  if(BUILD_TESTING)
    add_executable(${name}_corpus ${A_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
    target_include_directories(${name}_corpus PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${name}_corpus PRIVATE orr_flags ${A_LINKS})
    add_test(NAME ${name}_corpus COMMAND ${name}_corpus ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(${name}_corpus PROPERTIES TIMEOUT 60 LABELS "fuzz")
  endif()
endfunction()

# orr_mutant(name FILE actors/region/x.c FIRST seed COUNT seeds)
#   tests/sim/sim_seeds.c over a copy of FILE in which tests/sim/mutants/<name>.patch broke something: one of the seeds must
#   catch it. The copy defines all that the original does, so the original's object is not taken from the library.
function(orr_mutant name)
  cmake_parse_arguments(A "" "FILE;FIRST;COUNT" "" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  set(patch ${PROJECT_SOURCE_DIR}/tests/sim/mutants/${name}.patch)
  get_filename_component(dir ${PROJECT_SOURCE_DIR}/${A_FILE} DIRECTORY)
  get_filename_component(base ${A_FILE} NAME_WE)
  set(copy ${CMAKE_CURRENT_BINARY_DIR}/mutant_${name}/${base}.c)
  add_custom_command(OUTPUT ${copy}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/mutant_${name}
    COMMAND patch -s -o ${copy} ${PROJECT_SOURCE_DIR}/${A_FILE} ${patch}
    DEPENDS ${PROJECT_SOURCE_DIR}/${A_FILE} ${patch} VERBATIM)
  add_executable(mutant_${name} ${PROJECT_SOURCE_DIR}/tests/sim/sim_seeds.c ${copy})
  target_include_directories(mutant_${name} PRIVATE ${dir} ${PROJECT_SOURCE_DIR}/actors)
  target_link_libraries(mutant_${name} PRIVATE orr_flags orr_sim_fleet)
  add_test(NAME mutant_${name} COMMAND mutant_${name} caught ${A_FIRST} ${A_COUNT})
  set_tests_properties(mutant_${name} PROPERTIES TIMEOUT 300 LABELS "sim")
endfunction()
