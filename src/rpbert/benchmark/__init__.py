"""How fast a system is on this machine: made posts, random weights of published shapes.

`work` makes posts and models, `measures` takes the time and the memory, `parts` runs one part of
the benchmark in a process of its own, `whole` runs them all, `report` shows them.
"""
