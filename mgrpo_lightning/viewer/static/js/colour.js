// Colour of a token by its log-probability, its log ratio (adapter against sampler) or its trajectory's advantage.
"use strict";

const ratioColour = (ratio) => `hsl(${ratio > 0 ? 210 : 30} 75% 50% / ${Math.min(0.6, Math.abs(ratio) * 2)})`;

const logprobColour = (logprob) => {
  const surprise = Math.min(1, -logprob / 5);
  return `hsl(${130 - 130 * surprise} 70% 50% / ${0.12 + 0.45 * surprise})`;
};

const advantageColour = (advantage) => {
  const strength = Math.min(1, Math.abs(advantage) / 2);
  return `hsl(${advantage > 0 ? 140 : 0} 65% 50% / ${0.1 + 0.4 * strength})`;
};
