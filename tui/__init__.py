"""Terminal app to watch runs, inspect one, and compare several."""

import gc

# What the app imports lives as long as it does: searching it for garbage takes a fifth of the start. The app goes on
# with the search once it is there.
gc.disable()
