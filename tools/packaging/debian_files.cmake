# SPDX-License-Identifier: Apache-2.0
# Runs in cpack when the components are staged and before they are packed: adds what only Debian packages have.
foreach(component ${CPACK_COMPONENTS_ALL})
    string(TOUPPER ${component} upper)
    set(root ${CPACK_TEMPORARY_DIRECTORY}/${component})
    set(package ${CPACK_DEBIAN_${upper}_PACKAGE_NAME})
    if(NOT IS_DIRECTORY ${root}/usr)
        message(FATAL_ERROR "The component ${component} has not been staged in ${root}")
    endif()
    execute_process(COMMAND ${CPACK_FAULTLINE_SOURCE}/debian/finish ${root} ${package} ${CPACK_FAULTLINE_SOURCE}/debian
        COMMAND_ERROR_IS_FATAL ANY)
    if(component STREQUAL daemon)
        file(GLOB_RECURSE files RELATIVE ${root} ${root}/etc/*)
        list(SORT files)
        list(TRANSFORM files REPLACE "(.+)" "/\\1\n")
        list(JOIN files "" text)
        file(WRITE ${CPACK_FAULTLINE_CONFFILES} "${text}")
    endif()
endforeach()
