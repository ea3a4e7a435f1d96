// SPDX-License-Identifier: Apache-2.0
//
// The paths that are used unless the user names others.
#ifndef FAULTLINE_TOOLS_CLI_PATHS_H
#define FAULTLINE_TOOLS_CLI_PATHS_H

#define DEFAULT_CONFIG "/etc/faultline/faultline.conf"
#define DEFAULT_STORE "/var/lib/faultline"
#define DEFAULT_RUN "/run/faultline"
#define DEFAULT_SOCKETS DEFAULT_RUN "/images"
#define CONTROL_NAME "control.sock"
#define DEFAULT_CONTROL DEFAULT_RUN "/" CONTROL_NAME

#endif
