// SPDX-License-Identifier: Apache-2.0
//
// The paths that are used unless the user names others.
#ifndef FAULTLINE_TOOLS_CLI_PATHS_H
#define FAULTLINE_TOOLS_CLI_PATHS_H

#include <stdlib.h>

#define DEFAULT_STORE "/var/lib/faultline"
#define DEFAULT_RUN "/run/faultline"
#define DEFAULT_SOCKETS DEFAULT_RUN "/images"
#define DEFAULT_CONTROL DEFAULT_RUN "/control.sock"

static inline const char *default_store(void)
{
    const char *store = getenv("FAULTLINE_STORE");
    return store && *store ? store : DEFAULT_STORE;
}

static inline const char *default_control(void)
{
    const char *control = getenv("FAULTLINE_CONTROL");
    return control && *control ? control : DEFAULT_CONTROL;
}

#endif
