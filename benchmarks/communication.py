"""What several hosts could gain in training one network: computing against sending, calculated.

    python -m benchmarks.communication

Nothing is measured here: it is arithmetic with the figures of networks and machines below, so that
one can see when more hosts pay before renting them. A step takes

    computing   multiply-adds of the host's part of the batch / what the host computes per second
    sending     a ring all-reduce: each host sends and receives 2 (N - 1) / N of all gradients, in
                2 (N - 1) messages; and the statistics of each batch normalisation, forwards and
                backwards, one small message after another

one after the other (TensorFlow overlaps the two in part, so this is cautious). Source of the ring's
cost: P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms", 2009.
"""

from pathlib import Path

import pandas as pd

from benchmarks.contenders import multiply_adds
from stages.base import params
from stages.base.files import write_csv
from stages.base.stage import run_stage
from stages.network import architecture
from stages.network.settings import Train

RESULTS = Path("benchmarks/results/communication.csv")
HOSTS = (2, 4, 8, 64)
LINKS = {"1 Gbit/s": (125e6, 100e-6), "25 Gbit/s": (3.1e9, 20e-6)}  # bytes per second, latency
# Multiply-adds per second that training reaches: 2 cores, as benchmarks.bench measures; a GPU of a
# data centre, a fifth of its 312 TFLOP/s (A100's data sheet; 2 FLOP are one multiply-add).
MACHINES = {"2 cores": 45e9, "GPU": 31e12}
# ResNet-50: K. He et al., "Deep residual learning", 2016: parameters, multiply-adds of an image
# forwards and backwards, batch normalisations, images in a batch.
RESNET = ("ResNet-50", 25.6e6, 3 * 4.1e9, 53, 1024)


def rows() -> list[tuple]:
    settings = params.load("train", Train)
    network = architecture.build(10, settings.network)
    layers = len(settings.network.filters)
    size = settings.batch_size
    ours = ("params.yaml's", network.count_params(), multiply_adds(network), layers, size)
    found = []
    for name, weights, work, normalisations, batch in (ours, RESNET):
        for machine, rate in MACHINES.items():
            alone = batch * work / rate
            for link, (bandwidth, latency) in LINKS.items():
                for hosts in HOSTS:
                    messages = 2 * (hosts - 1) * (1 + 2 * normalisations)
                    sending = 2 * (hosts - 1) / hosts * 4 * weights / bandwidth + messages * latency
                    gain = alone / (alone / hosts + sending)
                    times = [1e3 * seconds for seconds in (alone / hosts, sending)]
                    found.append((name, machine, link, hosts, *times, gain))
    return found


def main() -> None:
    columns = ["network", "host", "link", "hosts", "computing_ms", "sending_ms", "times_as_fast"]
    table = pd.DataFrame(rows(), columns=columns).round(2)
    print(table.to_string(index=False))
    write_csv(RESULTS, table, index=False)


if __name__ == "__main__":
    run_stage(main)
