# SPDX-License-Identifier: Apache-2.0
# What the compiler and the linker can do against a fault that is exploited. tests/packages/hardened looks at what was
# built; docs/install.md says what each is for. Not with a sanitizer, which looks for the same faults in its own way.
target_link_options(faultline_flags INTERFACE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
if(NOT FAULTLINE_SANITIZE STREQUAL "")
    return()
endif()
target_compile_options(faultline_flags INTERFACE -fstack-protector-strong -fstack-clash-protection)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|i.86)$")
    target_compile_options(faultline_flags INTERFACE -fcf-protection=full)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    target_compile_options(faultline_flags INTERFACE -mbranch-protection=standard)
endif()
# Without optimisation there is none of it, and the C library warns. Undefined first: a distribution's compiler may set it.
target_compile_options(faultline_flags INTERFACE
    "$<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>")
