// SPDX-License-Identifier: Apache-2.0
#include "engine/base/rcu.h"

char fl_rcu_edge;
