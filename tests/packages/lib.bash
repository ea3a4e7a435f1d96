# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What both tests of what is installed need: the files that must be there, and a user's program built with them.

# What an installation has, in the folders of prefix /usr of Debian; a line may be a pattern.
installed_files=(
    '@lib@/faultline/libfaultline-preload.so'
    '@lib@/libfaultline-client.a'
    '@lib@/libfaultline-client.so'
    '@lib@/libfaultline-client.so.0'
    '@lib@/libfaultline-client.so.0.*'
    '@lib@/pkgconfig/faultline-client.pc'
    '@lib@/cmake/FaultlineClient/FaultlineClientConfig.cmake'
    '@lib@/cmake/FaultlineClient/FaultlineClientConfigVersion.cmake'
    '@units@/faultline.service'
    '@units@/faultline-files.socket'
    '@units@/faultline-files@.service'
    '@etc@/faultline/faultline.conf'
    '@prefix@/lib/sysusers.d/faultline.conf'
    '@prefix@/lib/tmpfiles.d/faultline.conf'
    '@prefix@/share/man/man5/*.5*'
    '@prefix@/share/bash-completion/completions/faultline'
    '@prefix@/share/zsh/vendor-completions/_faultline'
    '@prefix@/share/fish/vendor_completions.d/faultline.fish'
    '@prefix@/share/faultline/apparmor/faultline-serve'
    '@prefix@/share/faultline/bpftrace/latency.bt'
    '@prefix@/share/faultline/kubernetes/daemonset.yaml'
    '@prefix@/share/faultline/systemd/metrics-tcp.conf'
    '@prefix@/bin/faultline'
    '@prefix@/libexec/faultline/faultline-top'
    '@prefix@/libexec/faultline/faultline-remote'
    '@prefix@/include/faultline_client.h'
    '@prefix@/share/doc/faultline/README.md'
    '@prefix@/share/doc/faultline/docs/operations.md'
    '@prefix@/share/doc/faultline/docs/openapi.json'
    '@prefix@/share/man/man1/faultline.1'
    '@prefix@/share/man/man1/faultline-serve.1'
    '@prefix@/share/man/man3/fl_client_map.3'
)

# has_files ROOT PREFIX LIB UNITS ETC: all of them are in ROOT.
has_files() {
    local file root=$1
    for file in "${installed_files[@]}"; do
        file=${file//@prefix@/$2} file=${file//@lib@/$3} file=${file//@units@/$4} file=${file//@etc@/$5}
        compgen -G "$root$file" >/dev/null || fail "$root$file is not installed"
    done
}

# uses_cmake DIR SOURCE VERSION: writes to DIR a project that finds the library by its CMake package.
uses_cmake() {
    mkdir -p "$1"
    cp "$2" "$1/client.c"
    cat >"$1/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C)
find_package(FaultlineClient $3 REQUIRED)
add_executable(shared client.c)
target_link_libraries(shared PRIVATE FaultlineClient::faultline-client)
add_executable(static client.c)
target_link_libraries(static PRIVATE FaultlineClient::faultline-client-static)
END
}
