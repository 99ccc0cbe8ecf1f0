"""M-GRPO (arXiv 2511.13288) as pure functions without Lightning and without I/O; each file cites its equations.

Reading order, which is the order of the flow for one role in one training step:

1. ``rewards``       eq. 4, 5      components of a trajectory -> its reward R
2. ``alignment``     section 4.1   calls d_k of the K rollouts -> multiplicities m: the K x d slots of one query
3. ``advantages``    eq. 9 to 13   R and m of the n trajectories of one query -> advantages A, shape (n,)
4. ``coefficients``  eq. 14, 17    m of all queries -> coefficient c of each trajectory in the loss; they sum to 1
5. ``credit``        2 to 4        R of all trajectories of a step -> m, A and c of each one (``TrajectoryCredit``)
6. ``objective``     eq. 14 to 19  log-probabilities of N tokens, A and c of their B trajectories -> loss, a scalar

``config`` has the settings that 1 and 6 read. ``docs/algorithm.md`` has the equations beside the code, and
``examples/one_step.py`` a whole training step.
"""
