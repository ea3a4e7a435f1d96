# SPDX-License-Identifier: Apache-2.0
# Runs first in cpack: a package is made of a release build for /usr, and of the version that the changelog begins with.
if(NOT CPACK_FAULTLINE_PREFIX STREQUAL "/usr" OR CPACK_FAULTLINE_POINTS OR NOT CPACK_FAULTLINE_SANITIZE STREQUAL "")
    message(FATAL_ERROR "This build is not for packages: make it with cmake --preset package")
endif()
set(version ${CPACK_PACKAGE_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})
file(STRINGS ${CPACK_FAULTLINE_SOURCE}/debian/changelog first LIMIT_COUNT 1)
if(NOT first MATCHES "^faultline \\(${version}\\) ")
    message(FATAL_ERROR "tools/packaging/debian/changelog does not begin with version ${version}: ${first}")
endif()

# The same source gives the same packages: no file is younger than the newest entry of the changelog, as in Debian.
if(NOT DEFINED ENV{SOURCE_DATE_EPOCH})
    execute_process(COMMAND dpkg-parsechangelog -l${CPACK_FAULTLINE_SOURCE}/debian/changelog -STimestamp
        OUTPUT_VARIABLE seconds OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    set(ENV{SOURCE_DATE_EPOCH} ${seconds})
endif()
