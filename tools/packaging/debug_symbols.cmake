# SPDX-License-Identifier: Apache-2.0
# Runs when the component "debug" is installed: puts the debug information of each of the binaries where gdb looks for it.
foreach(binary ${binaries})
    execute_process(COMMAND ${readelf} -n ${binary} OUTPUT_VARIABLE notes COMMAND_ERROR_IS_FATAL ANY)
    if(NOT notes MATCHES "Build ID: ([0-9a-f][0-9a-f])([0-9a-f]+)")
        message(FATAL_ERROR "${binary} has no build id")
    endif()
    set(folder "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/lib/debug/.build-id/${CMAKE_MATCH_1}")
    set(file "${folder}/${CMAKE_MATCH_2}.debug")
    file(MAKE_DIRECTORY "${folder}")
    execute_process(COMMAND ${objcopy} --only-keep-debug --compress-debug-sections ${binary} ${file}
        COMMAND_ERROR_IS_FATAL ANY)
    file(CHMOD "${file}" PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
endforeach()
