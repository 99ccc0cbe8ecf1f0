"""M-GRPO (arXiv 2511.13288) as pure functions without Lightning and without I/O; each file cites its equations.

Reading order, which is the order of the flow for one role in one optimizer step:

1. ``rewards``       eq. 4, 5     components of a trajectory -> its reward
2. ``alignment``     section 4.1  calls per rollout -> K x d slots, as multiplicities of the real trajectories
3. ``advantages``    eq. 9 to 13  rewards and multiplicities of one group -> advantages
4. ``coefficients``  eq. 14, 17   multiplicities -> weight of each trajectory in the loss
5. ``credit``                     2 to 4 together: rewards of a step -> one ``Row`` per trajectory to train on
6. ``objective``     eq. 14 to 19 token log-probabilities, advantages, coefficients -> loss
"""
