"""The rows of the job's board about its ranks and their accelerators."""

from typing import Final

from dashboards.board import Row
from dashboards.panels import RANK_PHASES, Panel, graph
from dashboards.promql import OWN_WORK, RANK, Query, by, of_job, of_job_time, quantile, quantiles, rate
from distill_api.metrics import TrainerMetric as Trainer

OF_RANK = "node {{node_rank}} rank {{local_rank}}"


def rows() -> list[Row]:
    """Throughput of the gang, and what tells its ranks apart."""
    return [_throughput(), _ranks()]


def _throughput() -> Row:
    buckets = of_job(f"{Trainer.STEP_DURATION}_bucket")
    all_time = f"scalar(sum({of_job_time()}))"
    return Row(
        "Throughput",
        [
            graph(
                "Throughput",
                "Images per second of all ranks: as rank 0 measures over its last steps, and as the ranks count.",
                Query(f"max({of_job(Trainer.IMAGES_PER_SECOND)})", "measured"),
                Query(f"sum({rate(of_job(Trainer.IMAGES))})", "counted"),
                unit="none",
                width=6,
            ),
            graph(
                "Throughput per GPU",
                "Images per second of each rank, which has one GPU (or none): comparable between sizes of the gang.",
                Query(f"max({of_job(Trainer.IMAGES_PER_SECOND)}) / max({of_job(Trainer.WORLD_SIZE)})", "images/s"),
                unit="none",
                width=6,
            ),
            graph(
                "Step duration",
                "Time of a global step.",
                *quantiles(buckets, 0.5, 0.99),
                unit="s",
                width=6,
            ),
            graph(
                "Time by phase",
                "Where the ranks' time goes: waiting for data, teacher, forward with the losses, backward with "
                "all-reduce, optimizer, validation, checkpoint, start.",
                Query(f"{by('phase', 'sum', of_job_time())} / {all_time}", "{{phase}}"),
                unit="percentunit",
                width=6,
                stack=True,
                high=1,
                names=RANK_PHASES,
            ),
        ],
    )


def _ranks() -> Row:
    versions = by("torch, ultralytics", "count", of_job(Trainer.BUILD_INFO))
    own = by(RANK, "sum", of_job_time(OWN_WORK))
    buckets = of_job(f"{Trainer.STEP_DURATION}_bucket")
    return Row(
        "Ranks",
        [
            graph(
                "Own work by rank",
                "Share of time in data, teacher and forward, which no rank shares. The straggler is the highest line; "
                "the others wait for it in backward.",
                Query(own, OF_RANK),
                unit="percentunit",
                width=6,
            ),
            graph(
                "Skew between ranks",
                "Own work of the busiest rank over that of the least busy one. 1 is perfect; above 1.5 one node holds "
                "up the gang.",
                Query(f"max({own}) / min({own})", "skew"),
                unit="none",
                width=6,
            ),
            graph(
                "Step duration by rank",
                "99th percentile. Ranks step together, so all of them are as slow as the slowest.",
                Query(quantile(0.99, buckets, RANK), OF_RANK),
                unit="s",
                width=6,
            ),
            graph(
                "Ranks",
                "Ranks of the attempt, ranks that Prometheus reaches, and the number of the gang's life (execution), "
                "which grows with each.",
                Query(f"max({of_job(Trainer.WORLD_SIZE)})", "world size"),
                Query(f"count({of_job(Trainer.WORLD_SIZE)})", "scraped"),
                Query(f"max({of_job(Trainer.EXECUTION)})", "execution"),
                unit="none",
                width=6,
            ),
            graph(
                "Memory by rank",
                "GPU memory that PyTorch has reserved. 0 on CPUs.",
                Query(by(RANK, "max", of_job(Trainer.GPU_MEMORY)), OF_RANK),
                unit="bytes",
                width=12,
            ),
            graph(
                "Versions",
                "Ranks by the versions of PyTorch and Ultralytics that they run.",
                Query(versions, "torch {{torch}}, ultralytics {{ultralytics}}"),
                unit="none",
                width=12,
            ),
        ],
    )


DCGM: Final = (
    ("GPU utilisation", "DCGM_FI_DEV_GPU_UTIL", "Share of time in which a kernel ran.", "percent"),
    ("Tensor cores", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "Share of cycles with tensor cores at work.", "percentunit"),
    ("GPU memory used", "DCGM_FI_DEV_FB_USED", "Memory that all programs use.", "decmbytes"),
    ("GPU power", "DCGM_FI_DEV_POWER_USAGE", "Power that the GPU draws; it falls when ranks wait.", "watt"),
    ("GPU temperature", "DCGM_FI_DEV_GPU_TEMP", "Temperature; a hot GPU is throttled.", "celsius"),
    ("XID errors", "DCGM_FI_DEV_XID_ERRORS", "The last XID error; anything but 0 is a fault.", "none"),
)
"""Title, metric, description and unit."""


def dcgm() -> Row:
    """What NVIDIA's DCGM exporter says of the pods' GPUs, where a cluster has it."""
    return Row("GPUs (DCGM exporter)", [_dcgm(*panel) for panel in DCGM], closed=True)


def _dcgm(title: str, metric: str, description: str, unit: str) -> Panel:
    query = Query(_of_pods(metric), "{{Hostname}} GPU {{gpu}}")
    return graph(title, f"{description} Empty without the DCGM exporter.", query, unit=unit)


def _of_pods(metric: str) -> str:
    """Prometheus renames the exporter's labels namespace and pod unless the exporter's monitor honours them."""
    kept = 'namespace=~"$namespace", pod=~"$distilljob-a[0-9]+-.*"'
    renamed = 'exported_namespace=~"$namespace", exported_pod=~"$distilljob-a[0-9]+-.*"'
    return by("Hostname, gpu", "max", f"{metric}{{{renamed}}} or {metric}{{{kept}}}")
