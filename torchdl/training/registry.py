"""Every experiment of this project, by area: ``scripts/reproduce.py`` runs them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torchdl.losses import GAN_LOSSES
from torchdl.training.experiments import Experiment, Figure
from torchdl.training.reproducing import CUDA


def _percent(metric: str, *key: str | int, **others: object) -> Figure:
    return Figure(f"{metric}, %", key, **{"scale": 100, **others})  # type: ignore[arg-type]


ACCURACY = _percent("test accuracy", "accuracy")
HERE = "measured in the same run"
STEPS = "--max-steps 2"

# Contrastive predictive coding

PROBED = ("accuracy", "cpc")
ORIGINAL = "the Keras original's README, of images in colour; its users stay at 50 (issues 4 and 17)"


def _probes(network: float, source: str) -> tuple[Figure, ...]:
    where = {"file": "probe/probe.json"}
    return (
        _percent("paired accuracy", "val/paired_accuracy", file="metrics.csv", reference=99, source=ORIGINAL),
        _percent(
            "frozen encoder and the original's network", *PROBED, "mlp", reference=network, source=source, **where
        ),
        _percent("linear probe", *PROBED, "linear", **where),
        _percent("ten nearest neighbours", *PROBED, "knn", **where),
        _percent("k-means, no label but to name the clusters", *PROBED, "k-means", **where),
        _percent("one label a digit, nearest code", *PROBED, "1 label a class, nearest", **where),
        _percent("one label a digit, to name the clusters", *PROBED, "1 label a class, cluster", **where),
    )


GREY = "train_cpc.py --image-size 28 --no-color"
RELEASED = "the Keras original's released weights, on the same images"
QUICK_CPC = "--max-steps 2 --batch-size 8"
CPC = (
    Experiment(
        "cpc-grey",
        "cpc",
        "CPC with InfoNCE on 28x28 grey",
        "MNIST",
        (GREY, "probe_cpc.py --no-baselines"),
        (QUICK_CPC, "--epochs 1"),
        _probes(92.5, RELEASED),
        8,
        ("mnist",),
        (0, 1, 2),
        ("probe/codes.png",),
        headline=True,
    ),
    Experiment(
        "cpc-colour",
        "cpc",
        "CPC with InfoNCE on 64x64 in colour",
        "MNIST",
        ("train_cpc.py", "probe_cpc.py --no-baselines"),
        (QUICK_CPC, "--epochs 1 --views 1"),
        _probes(90, "the Keras original's README"),
        40,
        ("mnist",),
        (0, 1, 2),
        ("probe/codes.png", "plots/sequences.png"),
        headline=True,
    ),
    Experiment(
        "cpc-paired",
        "cpc",
        "CPC with the original's loss on 28x28 grey",
        "MNIST",
        (f"{GREY} --head paired", "probe_cpc.py --no-baselines"),
        (QUICK_CPC, "--epochs 1"),
        _probes(92.5, RELEASED),
        8,
        ("mnist",),
        (0, 1, 2),
    ),
    Experiment(
        "cpc-paired-colour",
        "cpc",
        "CPC with the original's loss on 64x64 in colour, half as long",
        "MNIST",
        ("train_cpc.py --head paired --epochs 5",),
        (QUICK_CPC,),
        (
            _percent(
                "paired accuracy",
                "val/paired_accuracy",
                file="metrics.csv",
                reference=99,
                source=ORIGINAL,
                note="it stays where the original's users are; InfoNCE leaves that within an epoch (cpc-colour)",
            ),
        ),
        17,
        ("mnist",),
    ),
    Experiment(
        "cpc-same",
        "cpc",
        "CPC on sequences of one digit repeated, 28x28 grey",
        "MNIST",
        (f"{GREY} --data same", "probe_cpc.py --no-baselines"),
        (QUICK_CPC, "--epochs 1"),
        (
            _percent("linear probe", *PROBED, "linear", file="probe/probe.json"),
            _percent("k-means, no label but to name the clusters", *PROBED, "k-means", file="probe/probe.json"),
        ),
        8,
        ("mnist",),
    ),
    Experiment(
        "cpc-baselines",
        "cpc",
        "the same encoder untrained, and trained by labels, 28x28 grey",
        "MNIST",
        (GREY, "probe_cpc.py"),
        (QUICK_CPC, "--epochs 1"),
        tuple(
            _percent(f"{name} encoder, {probe}", "accuracy", name, probe, file="probe/probe.json")
            for name in ("random", "supervised")
            for probe in ("linear", "k-means")
        ),
        16,
        ("mnist",),
        pictures=("probe/label_efficiency.png",),
    ),
)

# Generative adversarial networks, whose samples a classifier judges

JUDGES = {"MNIST": "judge-mnist", "Fashion-MNIST": "judge-fashion-mnist"}
QUICK_GAN = ("--max-steps 2 --samples 4 --judged 20", "--samples 20 --paired 20", "--n 4")
AGAINST = "against held-out images"
REAL = f"training images, {HERE}"


def _dataset(data: str) -> str:
    return data.lower().replace("-", "_")


def _judged(data: str) -> str:
    return f"--judge {{runs}}/lenet/{JUDGES[data]}-0"


def _sampled(metric: str, key: str, higher_is_better: bool, scale: float = 1) -> Figure:
    keys = [(AGAINST, kind, key) for kind in ("generated", "training images")]
    return Figure(metric, keys[0], higher_is_better, None, REAL, keys[1], "evaluation.json", scale)


SAMPLED = (
    _sampled("Fréchet distance of 10,000 samples", "Fréchet distance", False),
    _sampled("coverage", "coverage", True),
    _sampled("share of the rarest class, %", "rarest share", True, 100),
)


def _gan(
    name: str,
    system: str,
    data: str,
    options: str,
    minutes: float,
    headline: bool = False,
    needs: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Experiment:
    dataset, judged = _dataset(data), _judged(data)
    return Experiment(
        f"{name}-{data.lower()}",
        "gan",
        system,
        data,
        (f"train_gan.py --dataset {dataset} {options} {judged}", f"evaluate_gan.py {judged}", "generate.py --n 64"),
        QUICK_GAN,
        SAMPLED,
        minutes,
        (dataset, *needs),
        seeds,
        ("samples/generated.png", "plots/nearest.png"),
        headline,
        after=(JUDGES[data],),
    )


def _swept(data: str) -> Experiment:
    dataset = _dataset(data)
    pairs = [f"{model} {loss}" for model in ("simple", "deep", "conv") for loss in GAN_LOSSES]
    return Experiment(
        f"gan-sweep-{data.lower()}",
        "gan",
        "every pair with every loss after one epoch",
        data,
        (f"sweep_gan.py --dataset {dataset} --epochs 1 --samples 5000 {_judged(data)}",),
        (
            "--models simple --losses non_saturating --seeds 0 --samples 20 "
            '--options="--max-steps 2 --samples 4 --judged 20"',
        ),
        tuple(
            Figure(
                f"Fréchet distance, {pair}",
                ("rows", number, "Fréchet distance", "values"),
                False,
                None,
                REAL,
                ("rows", number, "train against test", "values"),
                f"sweep-{dataset}/sweep.json",
                note="one epoch is little, and far too little for pairs without convolutions",
                of_seeds=True,
            )
            for number, pair in enumerate(pairs)
        ),
        60,
        (dataset,),
        pictures=(f"sweep-{dataset}/sweep.png",),
        quick_figures=1,
        after=(JUDGES[data],),
    )


GAN = (
    *(
        Experiment(
            judge,
            "gan",
            "LenetLike that judges samples",
            data,
            (f"train_lenet.py --dataset {_dataset(data)}",),
            ("--max-steps 2",),
            (ACCURACY,),
            8,
            (_dataset(data),),
        )
        for data, judge in JUDGES.items()
    ),
    _gan(
        "gan-deep",
        "the course's GAN (lecture 69), for as many steps, at its best evaluation",
        "MNIST",
        "--model deep --max-steps 30000 --evaluate-every 4",
        20,
        seeds=(0,),
    ),
    *(
        _gan(
            "gan-simple",
            "the notes' GAN, with their settings, at its best evaluation",
            data,
            "--evaluate-every 5",
            9,
        )
        for data in JUDGES
    ),
    *(
        _gan(
            "gan-conv",
            "convolutional GAN, hinge loss, spectral norm, averaged weights",
            data,
            "--model conv --width 64 --loss hinge --batch-size 256 --max-steps 10000 --evaluate-every 7",
            5,
            headline=True,
            needs=(CUDA,),
        )
        for data in JUDGES
    ),
    *(_swept(data) for data in JUDGES),
)

# Images

CONFUSION = ("plots/confusion.png", "plots/misclassified.png")
ON_GPU = "--dataset cifar10-jpeg --flip 0.5 --precision bf16"
QUICK_ON_CPU = f"{STEPS} --batch-size 8 --precision fp32"
REPORTED = "what is reported of such networks"
COURSE_MNIST = replace(ACCURACY, reference=98, source="the course")
MIRRORED = _percent("test accuracy, with mirror images", "accuracy with mirror images")
KNN = _percent(
    "10-nn accuracy by codes",
    "autoencoder",
    "knn",
    reference_key=("pca", "knn"),
    source=f"as many principal components, {HERE}",
)
NMI = Figure(
    "mutual information of k-means by codes and classes, of 1",
    ("autoencoder", "nmi"),
    reference_key=("pca", "nmi"),
    source=f"as many principal components, {HERE}",
)
CODES = Figure(
    "squared error", ("mse",), False, None, f"as many principal components, {HERE}", ("mse of pca",), digits=5
)
CODER = "train_autoencoder.py --epochs 5 --lr 2e-3"
QUICK_CODER = f"{STEPS} --visualization-size 2"


def _classifier(
    name: str,
    system: str,
    data: str,
    command: str,
    needs: tuple[str, ...],
    minutes: float,
    seeds: Sequence[int] = (0, 1, 2),
    figures: tuple[Figure, ...] = (ACCURACY,),
    quick: str = STEPS,
    headline: bool = False,
) -> Experiment:
    return Experiment(
        name,
        "images",
        system,
        data,
        (command,),
        (quick,),
        figures,
        minutes,
        needs,
        tuple(seeds),
        CONFUSION[:1],
        headline,
    )


IMAGES = (
    _classifier(
        "mnist-mlp",
        "the network of lecture 24, as given",
        "MNIST",
        "train_cnn.py --model mlp --dataset mnist --epochs 10",
        ("mnist",),
        1.5,
        figures=(replace(COURSE_MNIST, note="with --schedule cosine it gets there (mnist-mlp-cosine)"),),
    ),
    _classifier(
        "mnist-mlp-cosine",
        "the same, its learning rate falling to 0",
        "MNIST",
        "train_cnn.py --model mlp --dataset mnist --epochs 10 --schedule cosine",
        ("mnist",),
        1.5,
        figures=(COURSE_MNIST,),
    ),
    _classifier(
        "mnist-lenet",
        "LenetLike, width 32, depth 2",
        "MNIST",
        "train_lenet.py --dataset mnist --schedule cosine --epochs 5",
        ("mnist",),
        7,
        headline=True,
    ),
    _classifier(
        "mnist-lstm",
        "the LSTM of lecture 50, which reads rows, as given",
        "MNIST",
        "train_cnn.py --model lstm --dataset mnist --epochs 10",
        ("mnist",),
        6,
        (0,),
        figures=(
            replace(
                ACCURACY,
                reference=98.7,
                source=REPORTED,
                note="larger batches and a falling rate get there (mnist-lstm-cosine)",
            ),
        ),
    ),
    _classifier(
        "mnist-lstm-cosine",
        "the same, tuned",
        "MNIST",
        "train_cnn.py --model lstm --dataset mnist --epochs 10 --schedule cosine --batch-size 128 --lr 3e-3",
        ("mnist",),
        4.5,
        (0,),
        figures=(replace(ACCURACY, reference=98.7, source=REPORTED),),
    ),
    _classifier(
        "fashion-cnn",
        "the network of lecture 32, as given",
        "Fashion-MNIST",
        "train_cnn.py --model cnn --dataset fashion_mnist",
        ("fashion_mnist",),
        10,
        (0,),
    ),
    _classifier(
        "fashion-cnn-augmented",
        "the same, of shifted and mirrored images (lecture 34)",
        "Fashion-MNIST",
        "train_cnn.py --model cnn --dataset fashion_mnist --shift 0.1 --flip 0.5",
        ("fashion_mnist",),
        10,
        (0,),
        (
            replace(
                ACCURACY,
                source="the images as they are (fashion-cnn)",
                reference_of="fashion-cnn",
                note="in as many epochs 88 % of the training images, augmented, are right: it wants more of them",
            ),
        ),
    ),
    _classifier(
        "fashion-vgg",
        "the network of lecture 36",
        "Fashion-MNIST",
        "train_cnn.py --model vgg --dataset fashion_mnist --flip 0.5 --epochs 8",
        ("fashion_mnist",),
        42,
        figures=(
            replace(
                ACCURACY,
                reference=92.1,
                source="three convolutions with batch norm, in the table of the data set's authors",
            ),
            MIRRORED,
        ),
        headline=True,
    ),
    _classifier(
        "cifar-lenet",
        "LenetLike, width 32, depth 2",
        "CIFAR-10 (JPEG)",
        "train_lenet.py --dataset cifar10-jpeg --schedule cosine --epochs 5",
        ("cifar10-jpeg",),
        7,
    ),
    _classifier(
        "cifar-cnn-wide",
        "the network of lecture 33, as given",
        "CIFAR-10 (JPEG)",
        "train_cnn.py --model cnn_wide --dataset cifar10-jpeg",
        ("cifar10-jpeg",),
        13,
    ),
    _classifier(
        "cifar-vgg",
        "the network of lecture 36, three times as wide",
        "CIFAR-10 (JPEG)",
        f"train_cnn.py --model vgg --width 96 --epochs 28 --batch-size 256 {ON_GPU}",
        ("cifar10-jpeg", CUDA),
        3,
        figures=(replace(ACCURACY, reference=90, source=REPORTED), MIRRORED),
        quick=QUICK_ON_CPU,
        headline=True,
    ),
    _classifier(
        "cifar-airbench",
        "a network that learns in few passes (Jordan 2024), twice as wide",
        "CIFAR-10 (JPEG)",
        f"train_cnn.py --model airbench --width 128 --epochs 20 --batch-size 512 {ON_GPU}",
        ("cifar10-jpeg", CUDA),
        1,
        figures=(
            replace(
                ACCURACY,
                reference=94,
                source="the paper, on the original images",
                note="these images are compressed, and part of the paper's recipe is left out",
            ),
            MIRRORED,
        ),
        quick=QUICK_ON_CPU,
    ),
    Experiment(
        "autoencoder-mnist",
        "images",
        "autoencoder, 32 numbers an image",
        "MNIST",
        (f"{CODER} --dataset mnist",),
        (QUICK_CODER,),
        (CODES, KNN, NMI),
        12,
        ("mnist",),
        seeds=(0, 1, 2),
        pictures=("plots/reconstructions.png",),
        headline=True,
    ),
    Experiment(
        "autoencoder-noise",
        "images",
        "the same, which removes noise",
        "MNIST",
        (f"{CODER} --dataset mnist --noise 0.3",),
        (QUICK_CODER,),
        (
            Figure(
                "squared error of images with noise of 0.3 removed",
                ("mse of denoised images",),
                False,
                None,
                "the noisy images",
                ("mse of noisy images",),
                digits=5,
            ),
            CODES,
            KNN,
            NMI,
        ),
        12,
        ("mnist",),
        pictures=("plots/reconstructions.png",),
    ),
    Experiment(
        "autoencoder-cifar",
        "images",
        "autoencoder, 32 numbers an image",
        "CIFAR-10 (JPEG)",
        (f"{CODER} --dataset cifar10-jpeg",),
        (QUICK_CODER,),
        (CODES, KNN, NMI),
        15,
        ("cifar10-jpeg",),
        seeds=(0, 1, 2),
        pictures=("plots/reconstructions.png",),
    ),
    Experiment(
        "activations",
        "images",
        "silent units after 300 steps of Adam at a rate of 0.1",
        "5,000 digits of MNIST",
        ("show_activations.py",),
        (STEPS.replace("--max-steps", "--steps"),),
        (
            _percent("silent ReLU units", "relu", "silent", -1, higher_is_better=False, file="dying.json"),
            _percent("silent LeakyReLU units", "leaky_relu", "silent", -1, higher_is_better=False, file="dying.json"),
        ),
        0.7,
        seeds=(0, 1, 2),
        pictures=("activations.png", "dying.png"),
    ),
    Experiment(
        "convolution",
        "images",
        "convolution by windows, by a matrix and by loops",
        "random numbers",
        ("show_convolution.py",),
        ("",),
        (
            Figure(
                "largest difference from PyTorch's and SciPy's",
                ("largest",),
                False,
                1e-12,
                "what rounding in float64 may leave",
                file="convolution.json",
                digits=15,
            ),
        ),
        0.2,
        pictures=("convolution.png",),
    ),
)

# Tables, and what optimizers do

LOGISTIC = f"scikit-learn's logistic regression, {HERE}"


RULES = (
    "gradient descent",
    "stochastic",
    "mini-batch",
    "momentum",
    "Nesterov",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Adam",
)


def _moore(note: str = "") -> tuple[Figure, ...]:
    return tuple(
        Figure(metric, (trained,), None, None, f"least squares, {HERE}", (exact,), digits=5, note=note)
        for metric, trained, exact in (
            ("slope a year", "slope by training", "slope by least squares"),
            ("years to double", "years to double, by training", "years to double, by least squares"),
        )
    )


TABULAR = (
    Experiment(
        "breast-cancer",
        "tabular",
        "linear model (lecture 10)",
        "scikit-learn's 569 breast tumours",
        ("train_tabular.py",),
        (STEPS,),
        (
            _percent(
                "held-out accuracy",
                "accuracy",
                "this model",
                reference_key=("accuracy", "logistic regression"),
                source=LOGISTIC,
            ),
            _percent(
                "area under the ROC curve",
                "area under the ROC curve",
                "this model",
                reference_key=("area under the ROC curve", "logistic regression"),
                source=LOGISTIC,
            ),
        ),
        0.2,
        seeds=(0, 1, 2, 3, 4),
        pictures=("plots/weights.png",),
        headline=True,
    ),
    Experiment(
        "moore",
        "tabular",
        "Moore's law by training",
        "the course's 162 processors",
        ("train_moore.py",),
        (STEPS,),
        _moore(),
        0.2,
        ("moore",),
        (0, 1, 2),
        ("plots/moore.png",),
        headline=True,
    ),
    Experiment(
        "moore-lecture",
        "tabular",
        "the same, trained as in lecture 12",
        "the course's 162 processors",
        ("train_moore.py --batch-size 32 --epochs 200 --later-epoch 50",),
        (STEPS,),
        _moore("too few steps; with all counts a step and 600 epochs each seed gets there (moore)"),
        0.2,
        ("moore",),
        (0, 1, 2),
    ),
    *(
        Experiment(
            name,
            "tabular",
            system,
            "1,000 points of cos 2 x1 + cos 3 x2",
            (command,),
            (STEPS,),
            (
                Figure(
                    "RMSE beyond the points",
                    ("RMSE outside",),
                    False,
                    None,
                    f"always 0, {HERE}",
                    ("RMSE outside of always 0",),
                    digits=3,
                    note=note,
                ),
                Figure("RMSE within the points", ("RMSE inside",), False, digits=3),
            ),
            0.5,
            seeds=(0, 1, 2),
            pictures=("plots/extrapolation.png",),
            headline=headline,
        )
        for name, system, command, note, headline in (
            (
                "surface-relu",
                "a surface, by lecture 25's network",
                "train_surface.py",
                "no ReLU network can: a periodic activation does (surface-sine)",
                False,
            ),
            (
                "surface-sine",
                "a surface by waves that fade where they are not needed (lecture 25)",
                "train_surface.py --activation sine",
                "",
                True,
            ),
        )
    ),
    Experiment(
        "optimizers",
        "tabular",
        "nine rules of optimization down one slope",
        "64 random examples",
        ("show_optimizers.py",),
        ("--steps 2",),
        tuple(
            Figure(
                f"loss above the least after 100 updates, {rule}",
                ("rules", rule, "loss above the least"),
                False,
                file="optimizers.json",
                digits=6,
            )
            for rule in RULES
        ),
        0.1,
        seeds=(0, 1, 2),
        pictures=("optimizers.png",),
    ),
    Experiment(
        "explore",
        "tabular",
        "a look at a table (lecture 6)",
        "scikit-learn's 569 breast tumours",
        ("explore.py",),
        ("--limit 2",),
        (),
        0.2,
        pictures=("scatter_matrix.png",),
    ),
)

# Sequences and forecasting

NAIVE = "the best forecast that learns nothing"
AHEAD = ("one step ahead", "20 steps ahead")


def _against_naive(note: str = "") -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"RMSE against a naive forecast's, {ahead}",
            ("against the best naive forecast", ahead, "ratio"),
            False,
            1.0,
            NAIVE,
            note=note,
        )
        for ahead in AHEAD
    )


def _forecast(
    name: str,
    system: str,
    data: str,
    command: str,
    figures: tuple[Figure, ...],
    minutes: float,
    needs: str = "",
    headline: bool = False,
) -> Experiment:
    return Experiment(
        name,
        "forecasting",
        system,
        data,
        (f"forecast.py {command}",),
        (STEPS,),
        figures,
        minutes,
        (needs,) if needs else (),
        (0, 1, 2),
        ("plots/forecast.png",) if name != "direction" else (),
        headline,
    )


def _against_least_squares(model: str, note: str) -> tuple[Figure, ...]:
    return (
        Figure(
            "RMSE 20 steps ahead",
            ("errors", AHEAD[1], f"{model}, trained", "rmse"),
            False,
            None,
            f"AR(10) by least squares, {HERE}",
            ("errors", AHEAD[1], "AR(10), least squares", "rmse"),
            digits=5,
            note=note,
        ),
    )


NEARLY = "training gets near the exact solution, and never quite there"
LINEAR = "a sine is what a linear model forecasts exactly"
MARKET = "so it is with prices, with returns and with the direction alike"
QUICK_SUMS = f"{STEPS} --sequences 40"
FORECASTING = (
    *(
        _forecast(name, system, "a sine", f"sine{options}", _against_least_squares(model, note), minutes)
        for name, system, model, options, minutes, note in (
            ("sine", "autoregressive linear model (lecture 39)", "linear", "", 0.4, NEARLY),
            ("sine-mlp", "the same with a hidden layer (lecture 38)", "mlp", " --model mlp", 0.4, LINEAR),
            ("sine-rnn", "simple RNN (lecture 43)", "rnn", " --model rnn", 0.5, LINEAR),
            (
                "sine-rnn-linear",
                "simple RNN without tanh (lecture 43)",
                "rnn",
                " --model rnn --activation none",
                0.5,
                NEARLY,
            ),
            ("sine-gru", "GRU (lecture 45)", "gru", " --model gru", 0.6, LINEAR),
            (
                "sine-lstm-deep",
                "LSTM of two layers, both ways (lecture 46)",
                "lstm",
                " --model lstm --layers 2 --bidirectional",
                1,
                LINEAR,
            ),
        )
    ),
    _forecast(
        "noisy-sine",
        "autoregressive linear model",
        "a sine with noise",
        "noisy_sine",
        _against_least_squares("linear", NEARLY),
        0.4,
    ),
    _forecast(
        "sine-of-square-linear",
        "autoregressive linear model (lecture 47)",
        "a sine of a square",
        "sine_of_square --model linear",
        _against_naive(),
        0.5,
    ),
    _forecast("sine-of-square", "simple RNN (lecture 47)", "a sine of a square", "sine_of_square", _against_naive(), 1),
    _forecast(
        "sine-of-square-lstm",
        "LSTM (lecture 47)",
        "a sine of a square",
        "sine_of_square --model lstm",
        _against_naive(),
        1,
    ),
    _forecast(
        "prices", "LSTM (lecture 51)", "Starbucks' closing prices", "prices", _against_naive(MARKET), 1.2, "sbux", True
    ),
    _forecast("returns", "LSTM (lecture 52)", "Starbucks' returns", "returns", _against_naive(MARKET), 1.2, "sbux"),
    _forecast(
        "direction",
        "LSTM: will the price rise? (lecture 53)",
        "Starbucks' prices and volumes",
        "direction",
        (
            _percent(
                "held-out days right",
                "accuracy",
                reference_key=("accuracy of the more frequent answer",),
                source=f"always the more frequent answer, {HERE}",
                note=MARKET,
            ),
        ),
        1.5,
        "sbux",
    ),
    Experiment(
        "long-distance",
        "forecasting",
        "who remembers how far back? (lecture 48)",
        "5,000 random sequences",
        ("long_distance.py",),
        ("--terms 10 20 30 --epochs 1 --sequences 40",),
        tuple(
            _percent(
                f"{distance} distance, {terms} terms: {network}",
                "accuracy",
                distance,
                network,
                terms,
                "held_out",
                file="accuracy.json",
                scale=1,
                reference=50,
                source="guessing",
            )
            for distance, terms in (("short", "30"), ("long", "10"), ("long", "20"), ("long", "30"))
            for network in ("linear", "rnn", "gru", "lstm", "rnn_max", "gru_max", "lstm_max")
        ),
        9,
        pictures=("accuracy.png",),
    ),
    *(
        Experiment(
            name,
            "forecasting",
            "LSTM of 16 units: the sum of two of a hundred numbers",
            f"numbers in {between}",
            (command,),
            (QUICK_SUMS,),
            (
                Figure(
                    "mean squared error",
                    ("mse",),
                    False,
                    None,
                    f"always the mean, {HERE}",
                    ("mse of always saying the mean",),
                    digits=5,
                ),
            ),
            4,
            seeds=(0, 1, 2),
            pictures=("plots/mse.png",),
            headline=headline,
        )
        for name, between, command, headline in (
            ("adding", "[0, 1]", "adding_problem.py", True),
            ("adding-signed", "[-1, 1]", "adding_problem.py --low -1", False),
        )
    ),
)

# Texts

TFIDF = "TF-IDF, logistic regression"
GIVEN_TEXT = (
    "--least 1 --no-unknown --no-same-digits --embedding-dim 20 --dropout 0 --optimizer adam --lr 1e-3 "
    "--schedule constant --weight-decay 0 --no-by-length"
)
TEXT = tuple(
    Experiment(
        name,
        "text",
        system,
        "SMS spam collection",
        (f"train_text.py {options}",),
        (STEPS,),
        tuple(
            Figure(
                f"held-out {score}{unit}",
                ("scores", "this model", score),
                True,
                None,
                f"TF-IDF and logistic regression, {HERE}",
                ("scores", TFIDF, score),
                scale=scale,
                digits=digits,
                note=note,
            )
            for score, unit, scale, digits in (
                ("accuracy", ", %", 100.0, 2),
                ("MCC", "", 1.0, 3),
                ("average precision", "", 1.0, 3),
            )
        ),
        minutes,
        ("spam",),
        (0, 1, 2, 3, 4),
        ("plots/precision_recall.png",),
        headline,
    )
    for name, system, options, minutes, headline, note in (
        ("text-lstm", "LSTM", "--model lstm", 0.7, True, ""),
        ("text-cnn", "convolutional network", "--model cnn", 0.8, False, ""),
        (
            "text-lstm-given",
            "the LSTM of lecture 57, as given",
            f"--model lstm --hidden 15 --epochs 10 {GIVEN_TEXT}",
            1.2,
            False,
            "unknown words, dropped words and digits alike make the difference (text-lstm)",
        ),
        (
            "text-cnn-given",
            "the network of lecture 59, as given",
            f"--model cnn --epochs 5 {GIVEN_TEXT}",
            0.8,
            False,
            "unknown words, dropped words and digits alike make the difference (text-cnn)",
        ),
    )
)

# Ratings

MEANS = (
    Figure(
        "RMSE",
        ("errors", "this model", "RMSE"),
        False,
        None,
        f"means of users and items, {HERE}",
        ("errors", "user and item means", "RMSE"),
        digits=4,
    ),
)
AGAINST_MF = replace(
    MEANS[0], source="biased matrix factorisation (ratings-mf)", reference_key=(), reference_of="ratings-mf"
)
NEW = "most who rate in the latest fifth are new, so that means are hard to beat; nothing here is better by time"
RATINGS = tuple(
    Experiment(
        f"ratings-{name}{'-time' if by_time else ''}",
        "ratings",
        system,
        f"MovieLens, ml-latest-small, {'the latest fifth' if by_time else 'a fifth at random'} held out",
        (f"train_recommender.py --model {name}{options}{' --split time' if by_time else ''}",),
        (STEPS,),
        (AGAINST_MF if name == "network" and not by_time else replace(MEANS[0], note=NEW if by_time else note),),
        minutes,
        ("ml-latest-small",),
        (0, 1, 2) if by_time else (0, 1, 2, 3, 4),
        ("plots/errors.png",),
        name == "network" and not by_time,
    )
    for name, system, options, minutes, note in (
        (
            "course",
            "the course's network (lecture 61), as given",
            "",
            0.7,
            "biases, factors and dropout make the difference (ratings-network)",
        ),
        ("mf", "biased matrix factorisation", " --epochs 6", 0.3, ""),
        ("network", "a network with biases and factors", " --epochs 8", 0.4, ""),
    )
    for by_time in (False, True)
)

# Transfer learning

FEW = "--per-class 500 --dataset cifar10-jpeg"
RATES = "--lr 1e-3 --weight-decay 3 --schedule cosine"
HEAD = f"{FEW} --input-size 160 --levels 17 {RATES}"
LITE = ("cifar10-jpeg", "efficientnet_lite_pytorch")
QUICK_HEAD = f"{STEPS} --per-class 2 --batch-size 4"


ABOVE_SCRATCH = replace(
    ACCURACY,
    reference=15,
    source="15 more than LenetLike from scratch (scratch-lenet)",
    reference_of="scratch-lenet",
)


def _transfer(
    name: str,
    system: str,
    command: str,
    needs: Sequence[str],
    minutes: float,
    quick: str = QUICK_HEAD,
    headline: bool = False,
    figures: tuple[Figure, ...] = (ABOVE_SCRATCH,),
) -> Experiment:
    return Experiment(
        name,
        "transfer",
        system,
        "CIFAR-10 (JPEG), 5,000 training images",
        (command,),
        (quick,),
        figures,
        minutes,
        tuple(needs),
        (0,),
        CONFUSION[:1],
        headline,
    )


TRANSFER = (
    _transfer(
        "transfer-pixels",
        "a head on pixels",
        f"train_transfer.py --backbone pixels {FEW} --input-size 32 {RATES}",
        LITE[:1],
        0.7,
        figures=(ACCURACY,),
    ),
    _transfer(
        "transfer-features",
        "a head on features that are kept",
        f"train_transfer.py --backbone efficientnet_lite0 --approach features {HEAD}",
        LITE,
        6,
        headline=True,
        figures=(
            ABOVE_SCRATCH,
            _percent(
                "the same features, scikit-learn's logistic regression",
                "accuracy of scikit-learn's logistic regression",
            ),
        ),
    ),
    _transfer(
        "transfer-augment",
        "a head, the network in the loop with augmented images",
        f"train_transfer.py --backbone efficientnet_lite0 --approach augment {HEAD} --evaluate-every 10",
        LITE,
        22,
        f"{QUICK_HEAD} --input-size 32",
    ),
    _transfer(
        "transfer-finetune",
        "a fine-tuned network: its head and its last 12 blocks",
        f"train_transfer.py --backbone efficientnet_lite0 --approach augment {FEW} --input-size 128 --epochs 7 "
        "--evaluate-every 7 --finetune 12 --finetune-epochs 5 --finetune-lr 5e-4 --lr 1e-3 --weight-decay 0.5 "
        "--schedule cosine",
        LITE,
        22,
        f"{QUICK_HEAD} --input-size 32",
        True,
    ),
    _transfer(
        "scratch-lenet",
        "LenetLike from scratch",
        f"train_lenet.py {FEW} --shift 0.1 --flip 0.5 --epochs 20 --schedule cosine",
        LITE[:1],
        6,
        QUICK_HEAD,
        figures=(ACCURACY,),
    ),
    _transfer(
        "scratch-airbench",
        "the best of the networks for images, from scratch",
        f"train_cnn.py --model airbench {FEW} --flip 0.5 --epochs 20",
        LITE[:1],
        17,
        f"{QUICK_HEAD}",
        figures=(ACCURACY,),
    ),
)

# Speed

AIM = "what this project aims at, against the usual way beside it"
QUICK_SPEED = "--repeats 1 --seconds 0.05"


def _speed(
    part: str,
    system: str,
    data: str,
    ratios: dict[str, tuple[str, float]],
    needs: Sequence[str],
    minutes: float,
    source: str = AIM,
    options: str = "",
    note: str = "",
) -> Experiment:
    figures = tuple(
        Figure(f"{metric}, times as quick", (name, "ratio"), True, aim, source, note=note)
        for name, (metric, aim) in ratios.items()
    )
    return Experiment(
        f"speed-{part}",
        "speed",
        system,
        data,
        (f"benchmark.py {part}{options}",),
        (QUICK_SPEED,),
        figures,
        minutes,
        tuple(needs),
        pictures=("plots/ratios.png",),
        headline=True,
        alone=True,
    )


SPEED = (
    _speed(
        "gan",
        "the notes' GAN, trained with everything on",
        "MNIST",
        {"gan": ("images a second", 4)},
        ("torchvision",),
        3,
        note="4.2 to 4.7 on another day: the machine is shared",
    ),
    _speed(
        "cpc",
        "CPC at 64x64 in colour",
        "MNIST",
        {"data": ("making sequences", 20), "step": ("a training step", 1), "data and step": ("both", 1.5)},
        ("keras",),
        8,
        options=" --repeats 3",
    ),
    _speed(
        "lenet",
        "LenetLike on images of CIFAR-10's shape",
        "random pixels",
        {"fp32": ("images a second", 2.2), "against ImageFolder": ("images a second, against files", 2.2)},
        ("torchvision",),
        12,
        options=" --repeats 15",
        note="2.34 and 2.25 in two other runs (GUIDE.md has more): the machine is shared",
    ),
    _speed(
        "forecast",
        "20 steps ahead by an LSTM",
        "a sine",
        {"forecasts of 20 steps": ("forecasts a second", 50)},
        (),
        2.5,
    ),
    _speed(
        "transfer",
        "a head on a frozen EfficientNet-Lite0, its features kept, against computed in every epoch",
        "random pixels",
        {"ten epochs": ("training images a second", 10)},
        ("efficientnet_lite_pytorch",),
        8,
        source="ten passes through the network against one",
        options=" --repeats 3",
    ),
    _speed(
        "startup",
        "start-up: import torchdl",
        "no data",
        {"import": ("imports, against import torch", round(1 / 1.15, 3))},
        (),
        2,
        source="15 % longer than import torch alone",
    ),
)

EXPERIMENTS: tuple[Experiment, ...] = (
    *CPC,
    *GAN,
    *IMAGES,
    *TABULAR,
    *FORECASTING,
    *TEXT,
    *RATINGS,
    *TRANSFER,
    *SPEED,
)

#: What of the course was not run for want of data: the system, its command, and what to fetch.
NOT_RUN = (
    (
        "VGG16 on Food-5K (lectures 66 and 67)",
        "train_transfer.py --backbone vgg16 --dataset Food-5K --image-size 224",
        "put the 5,000 images into the data folder's Food-5K/training/, validation/ and evaluation/, as they come; the "
        "command downloads torchvision's weights (528 MB)",
    ),
    (
        "the course's network on 20 million ratings (lecture 61)",
        "train_recommender.py --dataset ml-20m",
        "the command downloads the ratings (190 MB)",
    ),
    (
        "word vectors of others (lecture 54)",
        "train_text.py --vectors glove.6B.100d.txt --freeze",
        "fetch vectors such as GloVe's (https://nlp.stanford.edu/projects/glove)",
    ),
)
