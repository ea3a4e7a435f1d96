# SPDX-License-Identifier: Apache-2.0
# What of the unit tests runs in qemu-user, for a build that is cross-compiled: docs/testing.md has the reasons.
add_library(emulated INTERFACE) # what the emulator lacks; linked into every test, and nothing in other builds
if(CMAKE_CROSSCOMPILING_EMULATOR)
    string(REPLACE ";" "\",\"" words "${CMAKE_CROSSCOMPILING_EMULATOR}") # C strings
    target_sources(emulated INTERFACE ${CMAKE_CURRENT_LIST_DIR}/support/emulated.c)
    target_compile_definitions(emulated INTERFACE FAULTLINE_EMULATOR="${words}")
endif()

set(FAULTLINE_EMULATED_TESTS
    engine_test memory_limit_test plan_test map_pieces_test service_manager_test client_test page_size_test
    snapshot_roundtrip_test snapshot_dedup_test snapshot_damage_test snapshot_trace_test snapshot_trace_damage_test
    snapshot_index_lock_test)

# Of these programs only the tests whose SUITE/TEST matches.
set(FAULTLINE_EMULATED_engine_test
    "!(call_filter|call_lists|condemn|doctor|life|listen|orphan|presence|process_usage|samples|template_facts|template_window|uffd)/!(what_is_prepared_stays|is_known_by_its_file|one_that_can_accept_nothing_waits)")
set(FAULTLINE_EMULATED_service_manager_test
    "*/!(every_kind_of_descriptor_lives_on|thousands_of_descriptors_live_on|waits_for_room|a_fault_waits_for_the_next_life)")
set(FAULTLINE_EMULATED_client_test "client/*")
set(FAULTLINE_EMULATED_snapshot_roundtrip_test "*/!(random_files_in_one_store|sizes_around_page_frame_and_chunk)")

# The arguments that narrow the program's tests; empty if this build is not emulated.
function(faultline_emulated_filter name ret_arguments)
    set(${ret_arguments} "" PARENT_SCOPE)
    if(CMAKE_CROSSCOMPILING_EMULATOR AND FAULTLINE_EMULATED_${name})
        set(${ret_arguments} --filter ${FAULTLINE_EMULATED_${name}} PARENT_SCOPE)
    endif()
endfunction()

# Labels the test if it is in the list and this build is emulated. An emulator is slow, and has what others leave.
function(faultline_emulated name label timeout)
    if(NOT CMAKE_CROSSCOMPILING_EMULATOR OR NOT name IN_LIST FAULTLINE_EMULATED_TESTS)
        return()
    endif()
    math(EXPR slow "${timeout} * 10")
    set_tests_properties(${name} PROPERTIES LABELS "${label};emulated" TIMEOUT ${slow})
endfunction()
