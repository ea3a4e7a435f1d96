// SPDX-License-Identifier: Apache-2.0
//
// How much an event of the log matters. The numbers are syslog's.
#ifndef FAULTLINE_BASE_LOG_LEVEL_H
#define FAULTLINE_BASE_LOG_LEVEL_H

enum fl_log_level { FL_LOG_ERROR = 3, FL_LOG_WARNING = 4, FL_LOG_INFO = 6, FL_LOG_DEBUG = 7 };

#endif
