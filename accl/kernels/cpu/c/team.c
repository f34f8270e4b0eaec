/* Threads that wait, a moment awake and then asleep: to be woken takes longer than many of the things that are shared
   out, and the next one often follows at once. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "shared.h"
#include "team.h"

/* Looks at what is waited for before going to sleep: some 20 to 50 microseconds. */
#define LOOKS 1000

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE()
#endif

/* Something that one thread waits for, and another one brings about. */
typedef struct {
  pthread_mutex_t mutex;
  pthread_cond_t condition;
  _Atomic int64_t missing; /* until it is 0 */
} Event;

typedef struct {
  Team *team;
  int64_t item;
  pthread_t thread;
  Event asked;
} Member;

struct Team {
  int64_t size;
  Work *work; /* nothing: leave */
  void *what;
  Event done;
  Member member[]; /* beside the thread that asks */
};

static void init(Event *event, int64_t missing) {
  pthread_mutex_init(&event->mutex, 0);
  pthread_cond_init(&event->condition, 0);
  atomic_init(&event->missing, missing);
}

static void await(Event *event) {
  for (int i = 0; i < LOOKS; i++) {
    if (!atomic_load_explicit(&event->missing, memory_order_acquire)) return;
    PAUSE();
  }
  pthread_mutex_lock(&event->mutex);
  while (atomic_load(&event->missing)) pthread_cond_wait(&event->condition, &event->mutex);
  pthread_mutex_unlock(&event->mutex);
}

static void happened(Event *event) {
  if (atomic_fetch_sub(&event->missing, 1) > 1) return;
  pthread_mutex_lock(&event->mutex); /* who is about to sleep sees it, or is asleep */
  pthread_cond_signal(&event->condition);
  pthread_mutex_unlock(&event->mutex);
}

static void *serve(void *own) {
  Member *member = own;
  Team *team = member->team;
  for (;;) {
    await(&member->asked);
    atomic_store(&member->asked.missing, 1);
    if (!team->work) return 0;
    team->work(team->what, member->item);
    happened(&team->done);
  }
}

API void team_close(Team *team) {
  team->work = 0;
  for (int64_t i = 0; i < team->size - 1; i++) happened(&team->member[i].asked);
  for (int64_t i = 0; i < team->size - 1; i++) pthread_join(team->member[i].thread, 0);
  free(team);
}

/* So many threads, the one that asks among them; nothing if the system gives none. */
API Team *team_open(int64_t size) {
  Team *team = calloc(1, sizeof(Team) + (size_t)(size - 1) * sizeof(Member));
  if (!team) return 0;
  init(&team->done, 0);
  for (team->size = 1; team->size < size; team->size++) {
    Member *member = &team->member[team->size - 1];
    *member = (Member){.team = team, .item = team->size};
    init(&member->asked, 1);
    if (pthread_create(&member->thread, 0, serve, member)) {
      team_close(team);
      return 0;
    }
  }
  return team;
}

int64_t team_size(const Team *team) { return team->size; }

void share_out(Team *team, Work *work, void *what, int64_t items) {
  team->work = work;
  team->what = what;
  atomic_store(&team->done.missing, items - 1);
  for (int64_t i = 0; i < items - 1; i++) happened(&team->member[i].asked);
  work(what, 0);
  await(&team->done);
}
