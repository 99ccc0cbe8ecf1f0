"""The core types of a run, in the order in which they appear in a training step.

1. ``Question`` (``question.py``): a text with its accepted answers. A step asks Q questions; each is one query.
2. ``Span`` (``trajectory.py``): consecutive tokens that are all sampled (an action) or all given (an observation). An
   action has one behaviour log-probability per token, an observation none. A turn, one sampled message, is one action
   span.
3. ``Segment`` (``trajectory.py``): the T tokens of one growing context. Its spans give ``ids``, ``action_mask`` and
   ``logprobs``, each of length T.
4. ``Trajectory`` (``trajectory.py``): what one agent read and wrote for one question or subtask, as a list of segments.
   ``messages`` and ``calls`` are the same as text. Its ``Key`` is (step, query, rollout, invocation).
5. ``Rollout`` (``trajectory.py``): one main trajectory (invocation 0) and its sub trajectories (invocations 1, 2, ...).
   A sub-agent role has d_k trajectories in rollout k, one for each call; main has one.
6. ``Group`` (``trajectory.py``): one question and its K rollouts. Rewards are compared within a group only.
7. ``Score`` (``trajectory.py``): the reward components of one trajectory, and their weighted sum R (eq. 4 and 5).
   ``Rollout.scores`` holds them by invocation.
8. ``TrainingRow`` (``batch.py``): one segment as tensors, with the advantage and coefficient of its trajectory. ``ids``
   and ``mask`` have shape (T,), ``behaviour`` has shape (n,) for n sampled tokens. A trajectory that fills m slots
   gives its rows once, not m times.
9. ``AlignedBatch`` (``batch.py``): all rows of one role in one training step. Over all ranks, the
   coefficients sum to 1.
10. ``TeamBatch`` (``batch.py``): one training step of the team: the played groups and an ``AlignedBatch`` per trained
    role.

How they nest::

    Group                       one question, K rollouts
    |-- Question
    `-- Rollout        x K
        |-- Trajectory          main, invocation 0
        |   `-- Segment         one, where an agent never drops a part of its context
        |       `-- Span x ...  observation, action, observation, action, ...
        |-- Trajectory x ...    sub-agents, invocations 1, 2, ...
        `-- Score      x ...    one per trajectory

    TeamBatch                   one training step
    |-- Group          x Q      what was played
    `-- AlignedBatch   x ...    one per trained role
        `-- TrainingRow x ...   one per segment of a trajectory that fills a slot

``modules/microbatch.py`` cuts the rows into micro-batches. ``journal.py`` stores groups as Parquet, and ``ratios.py``
the log importance ratios of an update.
"""
