/* Threads that spin for a moment before they sleep: waking one takes longer than many of the loops here, and the next
   loop often follows at once. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "kernels.h"

/* How often a waiting thread looks before it goes to sleep: some 20 to 50 microseconds. */
#define SPINS 1000

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE()
#endif

/* A countdown, for one waiting thread at a time. */
typedef struct {
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  _Atomic int64_t pending; /* 0: the wait is over */
} Latch;

typedef struct {
  ThreadPool *pool;
  int64_t item;
  pthread_t thread;
  Latch start;
} Worker;

struct ThreadPool {
  int64_t size;
  Task *task; /* 0: exit */
  void *argument;
  Latch done;
  Worker workers[]; /* size - 1 of them */
};

static void latch_init(Latch *latch, int64_t pending) {
  pthread_mutex_init(&latch->mutex, 0);
  pthread_cond_init(&latch->condition, 0);
  atomic_init(&latch->pending, pending);
}

static void latch_wait(Latch *latch) {
  for (int i = 0; i < SPINS; i++) {
    if (!atomic_load_explicit(&latch->pending, memory_order_acquire)) return;
    PAUSE();
  }
  pthread_mutex_lock(&latch->mutex);
  while (atomic_load(&latch->pending)) pthread_cond_wait(&latch->condition, &latch->mutex);
  pthread_mutex_unlock(&latch->mutex);
}

static void latch_count_down(Latch *latch) {
  if (atomic_fetch_sub(&latch->pending, 1) > 1) return;
  pthread_mutex_lock(&latch->mutex); /* a thread about to sleep sees the 0 first, or is asleep already */
  pthread_cond_signal(&latch->condition);
  pthread_mutex_unlock(&latch->mutex);
}

static void *work(void *argument) {
  Worker *worker = argument;
  ThreadPool *pool = worker->pool;
  for (;;) {
    latch_wait(&worker->start);
    atomic_store(&worker->start.pending, 1);
    if (!pool->task) return 0;
    pool->task(pool->argument, worker->item);
    latch_count_down(&pool->done);
  }
}

/* Ends and frees a pool. */
API void thread_pool_close(ThreadPool *pool) {
  pool->task = 0;
  for (int64_t i = 0; i < pool->size - 1; i++) latch_count_down(&pool->workers[i].start);
  for (int64_t i = 0; i < pool->size - 1; i++) pthread_join(pool->workers[i].thread, 0);
  free(pool);
}

/* Returns a pool of `size` threads, the calling one among them, or 0 if the system gives no more threads. */
API ThreadPool *thread_pool_open(int64_t size) {
  ThreadPool *pool = calloc(1, sizeof(ThreadPool) + (size_t)(size - 1) * sizeof(Worker));
  if (!pool) return 0;
  latch_init(&pool->done, 0);
  for (pool->size = 1; pool->size < size; pool->size++) {
    Worker *worker = &pool->workers[pool->size - 1];
    *worker = (Worker){.pool = pool, .item = pool->size};
    latch_init(&worker->start, 1);
    if (pthread_create(&worker->thread, 0, work, worker)) {
      thread_pool_close(pool);
      return 0;
    }
  }
  return pool;
}

/* Number of threads, the calling one among them. */
int64_t thread_pool_size(const ThreadPool *pool) { return pool->size; }

/* Calls task(argument, item) for each of 1 to `thread_pool_size` items, item 0 in the calling thread, and waits for all
   of them. Calls must not overlap. */
void parallel_for(ThreadPool *pool, Task *task, void *argument, int64_t items) {
  pool->task = task;
  pool->argument = argument;
  atomic_store(&pool->done.pending, items - 1);
  for (int64_t i = 0; i < items - 1; i++) latch_count_down(&pool->workers[i].start);
  task(argument, 0);
  latch_wait(&pool->done);
}
