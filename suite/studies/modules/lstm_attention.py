"""A classifier of token sequences: embedding, LSTM, attention over time, one sigmoid.

h_t = LSTM(embedding(t)),  e_t = tanh(w . h_t + b),  p = softmax(e over t),  y = sigmoid(u . sum_t p_t
                           h_t + c)
"""

from __future__ import annotations

import torch
from torch import nn


class LSTMAttention(nn.Module):
    """Tokens [batch, n] of integers below `vocabulary` -> probabilities [batch, 1]."""

    def __init__(self, vocabulary: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, hidden_size, batch_first=True)
        self.score = nn.Linear(hidden_size, 1)
        self.dense = nn.Linear(hidden_size, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h, _ = self.lstm(self.embedding(tokens))
        p = torch.softmax(torch.tanh(self.score(h)), -2)
        return torch.sigmoid(self.dense((p * h).sum(-2)))
