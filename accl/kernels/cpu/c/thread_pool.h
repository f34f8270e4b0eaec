/* A pool of threads for loops whose iterations are independent. */

#pragma once

#include <stdint.h>

typedef struct ThreadPool ThreadPool;
typedef void Task(void *argument, int64_t item);

/* Number of threads, the calling one among them. */
int64_t thread_pool_size(const ThreadPool *pool);

/* Calls task(argument, item) for each of 1 to `thread_pool_size` items, item 0 in the calling thread, and waits for all
   of them. Calls must not overlap. */
void parallel_for(ThreadPool *pool, Task *task, void *argument, int64_t items);
