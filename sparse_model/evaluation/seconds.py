"""Seconds per picture, measured so that a busy machine changes them little."""

import time
from collections.abc import Sequence

import torch
from tqdm import tqdm

from .measure import Bench, Cell

PICTURES, ROUNDS = 20, 5
MANY = 500  # pictures that keep a GPU busy


def seconds_per_picture(bench: Bench, cells: Sequence[Cell], rounds: int = ROUNDS) -> list[float]:
    """One number per cell: the least of several rounds in which the cells take turns, drawn in one batch.

    On a CPU it is processor time of one thread, which waiting for a core is not part of; on a GPU time by the clock, of
    MANY pictures.
    """
    on_gpu = bench.accelerator.device.type == "cuda"
    pictures = MANY if on_gpu else PICTURES
    index, best, threads = torch.arange(pictures), [float("inf")] * len(cells), torch.get_num_threads()
    clock = time.perf_counter if on_gpu else time.process_time
    torch.set_num_threads(1)
    try:
        for _ in tqdm(range(rounds), desc="seconds per picture", leave=False):
            for place, cell in enumerate(cells):
                started = clock()
                bench.draw(cell, index)
                if on_gpu:
                    torch.cuda.synchronize()
                best[place] = min(best[place], (clock() - started) / pictures)
    finally:
        torch.set_num_threads(threads)
    return best
