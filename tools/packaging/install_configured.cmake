# SPDX-License-Identifier: Apache-2.0
# Runs when a file is installed, with the variables that install_configured() of CMakeLists.txt sets.
# keep: a file that is there already stays as it is, since people edit it.
set(BINDIR "${CMAKE_INSTALL_PREFIX}/${bindir}")
set(LIBDIR "${CMAKE_INSTALL_PREFIX}/${libdir}")
set(INCLUDEDIR "${CMAKE_INSTALL_PREFIX}/${includedir}")
set(FAULTLINE_COMMAND "${BINDIR}/faultline")
set(VERSION "${version}")

# Debian and the Filesystem Hierarchy Standard: what belongs to /usr is configured in /etc.
if(CMAKE_INSTALL_PREFIX STREQUAL "/usr")
    set(SYSCONFDIR /etc)
    set(SYSTEMD_UNIT_DIR /lib/systemd/system)
else()
    set(SYSCONFDIR "${CMAKE_INSTALL_PREFIX}/etc")
    set(SYSTEMD_UNIT_DIR "${CMAKE_INSTALL_PREFIX}/lib/systemd/system")
endif()
if(NOT unit_dir STREQUAL "")
    set(SYSTEMD_UNIT_DIR "${unit_dir}")
endif()

string(CONFIGURE "${folder}" folder @ONLY)
cmake_path(ABSOLUTE_PATH folder BASE_DIRECTORY "${CMAKE_INSTALL_PREFIX}")
if(keep AND EXISTS "$ENV{DESTDIR}${folder}/${name}")
    message(STATUS "Kept as it is: $ENV{DESTDIR}${folder}/${name}")
    return()
endif()
configure_file("${file}" "${work}/${name}" @ONLY)
file(INSTALL DESTINATION "${folder}" TYPE FILE FILES "${work}/${name}")
