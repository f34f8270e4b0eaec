/* Threads that share out what is computed. */

#pragma once

#include <stdint.h>

typedef struct Team Team;
typedef void Work(void *what, int64_t item);

int64_t team_size(const Team *team);

/* Calls `work` for each of at most `team_size` items, the first in this thread, and waits for all of them. One thread
   may ask at a time. */
void share_out(Team *team, Work *work, void *what, int64_t items);
