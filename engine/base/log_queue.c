// SPDX-License-Identifier: Apache-2.0
#include "engine/base/log_queue.h"

#include <string.h>

#include "engine/base/log_level.h"

static void copy_in(struct fl_log_queue *queue, const void *from, size_t count)
{
    size_t at = (queue->first + queue->used) % FL_LOG_QUEUE;
    size_t before_end = FL_LOG_QUEUE - at < count ? FL_LOG_QUEUE - at : count;
    memcpy(queue->bytes + at, from, before_end);
    memcpy(queue->bytes, (const unsigned char *)from + before_end, count - before_end);
    queue->used += count;
}

static void copy_out(struct fl_log_queue *queue, void *to, size_t count)
{
    size_t before_end = FL_LOG_QUEUE - queue->first < count ? FL_LOG_QUEUE - queue->first : count;
    memcpy(to, queue->bytes + queue->first, before_end);
    memcpy((unsigned char *)to + before_end, queue->bytes, count - before_end);
    queue->first = (queue->first + count) % FL_LOG_QUEUE;
    queue->used -= count;
}

bool fl_log_queue_put(struct fl_log_queue *queue, const struct fl_log_record *record)
{
    size_t size = record->level <= FL_LOG_WARNING ? FL_LOG_QUEUE : FL_LOG_QUEUE / 4 * 3;
    size_t count = FL_LOG_RECORD_HEAD + record->bytes;
    if (queue->used + count > size)
        return false;
    copy_in(queue, record, count);
    return true;
}

bool fl_log_queue_take(struct fl_log_queue *queue, struct fl_log_record *ret_record)
{
    if (queue->used == 0)
        return false;
    copy_out(queue, ret_record, FL_LOG_RECORD_HEAD);
    copy_out(queue, ret_record->text, ret_record->bytes);
    if (queue->used == 0)
        queue->first = 0; // few pages are touched as long as it is read in time
    return true;
}
