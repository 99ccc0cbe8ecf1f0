"""A team on a real chat template, tokenizer, model, sampler and scheduler (tiny and random, so it says nonsense)."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.protocol.prompts import NOTICE
from mgrpo_lightning.records.trajectory import Rollout
from tests.agents.fakes import FakeTool, Speak, answer, call, duo, echo, limits, question
from tests.agents.test_players import scripts
from tests.support.tiny import make_tiny_model, make_tiny_tokenizer


def scripted(speakers: dict[str, Speak], **budget: int) -> Rollout:
    chat = Chat(make_tiny_tokenizer())
    roles = duo(main=limits(**budget), searcher=limits(**budget))
    tools = cast("Any", {"search": FakeTool(echo)})
    team = Players(roles, dict.fromkeys(roles, chat), {}, tools, scheduler=Scheduler("rounds"), seed=0)
    request = PlayRequest([question("Où? <|im_end|>")], step=0, rollouts=1, script=scripts(speakers))
    return team.play(request).groups[0].rollouts[0]


TASKS = ["peak of Côte d'Ivoire", "a <tool_call> in text", "<|im_start|>system"]


@pytest.mark.parametrize("task", TASKS)
def test_scripts_are_encoded_as_the_template_says(task: str) -> None:
    said = [call("searcher", task=task), f"so: {answer('done')}"]
    speakers: dict[str, Speak] = {
        "main": lambda _, turn, __: said[turn],
        "searcher": lambda _, turn, __: call("search", query=task) if turn == 0 else answer("report"),
    }
    rollout = scripted(speakers)
    assert all(trajectory.valid for trajectory in rollout.trajectories())
    assert rollout.subs[0].task == task
    tokenizer = make_tiny_tokenizer()
    text = tokenizer.decode(rollout.main.segments[0].ids, skip_special_tokens=False)
    assert text == (
        "<|im_start|>system\nplan<|im_end|>\n<|im_start|>user\nOù? <|im_end|><|im_end|>\n<|im_start|>assistant\n"
        f"{said[0]}<|im_end|>\n<|im_start|>user\n<tool_response>\nreport\n</tool_response><|im_end|>\n"
        f"<|im_start|>assistant\n{said[1]}<|im_end|>"
    )
    (segment,) = rollout.main.segments
    actions = [token for token, trained in zip(segment.ids, segment.action_mask, strict=True) if trained]
    assert tokenizer.decode(actions, skip_special_tokens=False) == f"{said[0]}<|im_end|>{said[1]}<|im_end|>"
    tags = [tokenizer.convert_tokens_to_ids(tag) for tag in ("<tool_call>", "</tool_call>", "<answer>", "</answer>")]
    assert [token for token in actions if token in tags] == tags, "tags of actions are tokens"


def test_the_context_limit_holds_for_real_tokens() -> None:
    speakers: dict[str, Speak] = {
        "main": lambda _, turn, __: call("searcher", task="x" * 30) if turn == 0 else answer("done"),
        "searcher": lambda _, turn, __: call("search", query="z. " * 60) if turn == 0 else answer("r" * 40),
    }
    rollout = scripted(speakers, context=650, new_tokens=250, observation=400)
    for trajectory in rollout.trajectories():
        assert trajectory.valid, trajectory.violations
        assert trajectory.num_tokens <= 650
    assert rollout.subs[0].messages[3].content.endswith(f"[cut]\n{NOTICE}")


def test_a_rendered_call_reads_back_through_ids() -> None:
    chat = Chat(make_tiny_tokenizer())
    action = Action("höchster Punkt?", (ToolCall("search", {"query": "</tool_call> <|im_end|> 高"}),))
    ids = chat.encode_action(HermesDialect().render(action))
    assert HermesDialect().parse(chat.decode_action(ids)) == action


def test_a_sampled_play_records_what_the_sampler_made(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "tiny")
    base = load_base(str(folder), quantization="none", compute_dtype=torch.float32, device=torch.device("cpu"))
    roles = duo(main=limits(new_tokens=12, turns=3), searcher=limits(new_tokens=12))
    policies = {name: Policy(name, role, base, seed=0) for name, role in roles.items()}
    scheduler = Scheduler("rounds")
    team = Players(
        roles,
        {name: policy.chat for name, policy in policies.items()},
        {name: TransformersSampler(policy, scheduler) for name, policy in policies.items()},
        cast("Any", {"search": FakeTool(echo)}),
        scheduler=scheduler,
        seed=0,
    )
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=4)).groups
    mains = [rollout.main for rollout in group.rollouts]
    assert len({tuple(main.segments[0].ids) for main in mains}) == 4, "every rollout has random numbers of its own"
    for main in mains:
        assert main.num_actions == sum(len(span.logprobs) for span in main.spans) > 0
        assert all(value < 0 for span in main.spans for value in span.logprobs)
        assert main.valid == (main.answer is not None)
