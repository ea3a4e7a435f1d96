# SPDX-License-Identifier: Apache-2.0
# Debian packages: `cpack -G DEB` in a build with the preset "package". docs/install.md says what each has.
set(FAULTLINE_MAINTAINER "Faultline maintainers <maintainers@faultline.example>" CACHE STRING
    "The maintainer that packages name: who builds packages for others sets this")
set(FAULTLINE_DEBIAN_REVISION 1 CACHE STRING "The revision of packages of one version: VERSION-REVISION")

# Debug information of all programs and libraries, found by gdb by their build ids. No part of `cmake --install`.
install(CODE "
    set(binaries \"$<TARGET_FILE:faultline>\" \"$<TARGET_FILE:faultline-client>\" \"$<TARGET_FILE:faultline-preload>\"
        \"$<TARGET_FILE:faultline-top>\" \"$<TARGET_FILE:faultline-remote>\")
    set(objcopy \"${CMAKE_OBJCOPY}\")
    set(readelf \"${CMAKE_READELF}\")
    include(\"${CMAKE_CURRENT_LIST_DIR}/debug_symbols.cmake\")"
    COMPONENT debug EXCLUDE_FROM_ALL)

if(CMAKE_SYSTEM_PROCESSOR STREQUAL x86_64)
    set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE amd64)
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL aarch64)
    set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
endif()
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME faultline)
set(CPACK_PACKAGE_VENDOR Faultline)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_COMPONENTS_ALL daemon library development debug)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
# Units and configuration are not under the prefix, so that it is staged by DESTDIR.
set(CPACK_SET_DESTDIR ON)
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)

set(debian_version ${PROJECT_VERSION}-${FAULTLINE_DEBIAN_REVISION})
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${FAULTLINE_MAINTAINER})
set(CPACK_DEBIAN_PACKAGE_RELEASE ${FAULTLINE_DEBIAN_REVISION})
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
# The package's own library is not installed where it is built.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_BINARY_DIR}/client)

set(CPACK_DEBIAN_DAEMON_PACKAGE_NAME faultline)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SUGGESTS "bpftrace, prometheus")
set(CPACK_COMPONENT_DAEMON_DESCRIPTION "serves the page faults of restored microVMs
Faultline fills the memory of microVMs that were restored from a snapshot,
page by page, when they touch it, from a compressed and checksummed store in
which snapshots share their equal pages. It speaks Firecracker's handshake.
Its engine can be killed, upgraded and restarted while VMs run.
This package has the command, a unit for systemd, and the library that is
preloaded into QEMU. Nothing is started or enabled when it is installed.")
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_LIST_DIR}/debian/postinst ${CMAKE_CURRENT_LIST_DIR}/debian/prerm
    ${CMAKE_CURRENT_LIST_DIR}/debian/postrm ${CMAKE_CURRENT_BINARY_DIR}/debian/conffiles)
# What is staged in /etc: written before the package is made.
set(CPACK_FAULTLINE_CONFFILES ${CMAKE_CURRENT_BINARY_DIR}/debian/conffiles)
file(WRITE ${CPACK_FAULTLINE_CONFFILES} "")

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libfaultline-client0)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_MULTIARCH same)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "memory with the content of a snapshot, filled on demand
A program that is linked with this library gets memory that has the content
of an image of Faultline's store. A page is fetched when it is touched. Any
handler that speaks Firecracker's handshake can serve it.")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA
    ${CMAKE_CURRENT_BINARY_DIR}/debian/shlibs ${CMAKE_CURRENT_LIST_DIR}/debian/triggers)
file(CONFIGURE OUTPUT debian/shlibs CONTENT
    "libfaultline-client 0 libfaultline-client0 (>= @PROJECT_VERSION@)\n" @ONLY)

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libfaultline-client-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_MULTIARCH same)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libfaultline-client0 (= ${debian_version})")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "memory with the content of a snapshot: for developers
The header, the static library, the pkg-config file and the CMake package of
libfaultline-client, which gives a program memory that has the content of an
image of Faultline's store.")

set(CPACK_DEBIAN_DEBUG_PACKAGE_NAME faultline-dbgsym)
set(CPACK_DEBIAN_DEBUG_PACKAGE_SECTION debug)
set(CPACK_DEBIAN_DEBUG_PACKAGE_DEPENDS "faultline (= ${debian_version}) | libfaultline-client0 (= ${debian_version})")
set(CPACK_COMPONENT_DEBUG_DESCRIPTION "debug symbols for faultline and libfaultline-client0
With these, gdb shows the names of functions and lines of the source in a
backtrace of the command, the client library and the preload library.")

set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian_files.cmake)
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_LIST_DIR}/cpack_check.cmake)
set(CPACK_FAULTLINE_SOURCE ${CMAKE_CURRENT_LIST_DIR})
set(CPACK_FAULTLINE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_FAULTLINE_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_FAULTLINE_POINTS "${FAULTLINE_POINTS}")
set(CPACK_FAULTLINE_SANITIZE "${FAULTLINE_SANITIZE}")
include(CPack)
