"""GANs of healthy images, and how an image is brought back into their latent space (survey Sections 2.4 and 5.1).

x: healthy image, z ~ N(0, I): code; G: generator, D: discriminator with features f, E: encoder.

AnoGAN (Schlegl et al. 2017) trains G and D as any GAN; an image's code is searched for when it comes
(`SearchedReconstruction`). f-AnoGAN (Schlegl et al. 2019) then holds G and D fixed and trains an encoder on images,

    E plays:  ‖x − G(E(x))‖² / n + κ ‖f(x) − f(G(E(x)))‖² / n_f                             (izi_f, Section 3.2)

BiGAN (Donahue et al. 2017; ALI, Dumoulin et al. 2017) trains all at once, D telling pairs of image and code:

    min_{G,E} max_D  E[log D(x, E(x))] + E[log(1 − D(G(z), z))]                               (Donahue, Eq. 2)

Here with any objective of the survey's Table 1, where G makes D take its pairs for those of E, and E the reverse.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline import objectives
from pipeline.methods.adversarial import discriminator_terms
from pipeline.methods.base import Batch, Player, Shared, Terms, every
from pipeline.methods.gan import GAN
from pipeline.networks import JointDiscriminator, Reconstruction, SearchedReconstruction
from pipeline.objectives import LeastSquares, Objective


class AnoGAN:
    """A GAN of healthy images, and f-AnoGAN's encoder where the network has one.

    Args:
        network: `SearchedReconstruction` for AnoGAN, `Reconstruction` with a critic for f-AnoGAN.
        latent: numbers of z.
        objective: of the GAN, by name or as an object.
        critic_steps: steps of D for each step of G.
        gan_steps: iterations in which the GAN plays, before the encoder does; of no meaning without encoder.

    Raises:
        ValueError: if a reconstruction has no critic, or there are no steps.
    """

    def __init__(
        self,
        network: Reconstruction | SearchedReconstruction,
        latent: int,
        objective: Objective | str = "wasserstein_gp",
        critic_steps: int = 5,
        gan_steps: int = 10000,
    ) -> None:
        if network.critic is None:
            raise ValueError("the network has no critic, expected a discriminator to train the generator against")
        if gan_steps < 1:
            raise ValueError(f"the GAN plays at least 1 step, found {gan_steps}")
        self.network = network
        self.gan = GAN(network.generator, network.critic, latent, objective, critic_steps)
        self.objective = self.gan.objective
        self.networks: dict[str, nn.Module] = dict(self.gan.networks)
        self.exports = {"healthy": network}
        self.players: tuple[Player, ...] = self.gan.players
        if isinstance(network, Reconstruction):
            self.networks["encoder"] = network.encoder
            first = tuple(_until(player, gan_steps) for player in self.gan.players)
            encoder = Player("encoder", ("encoder",), self.encode, lambda iteration: iteration >= gan_steps)
            self.players = (*first, encoder)

    def forward(self, batch: Batch) -> Shared:
        """Z and G(z), which both players of the GAN need."""
        return self.gan.forward(batch)

    def encode(self, batch: Batch, shared: Shared) -> Terms:
        """E plays: izi_f.

        Raises:
            TypeError: if the network searches, and has no E.
        """
        del shared
        if not isinstance(self.network, Reconstruction):
            raise TypeError("the network searches for codes, expected one that encodes")
        # G and D are done: their batch norm keeps the statistics of their own training.
        for network in self.gan.networks.values():
            network.eval()
        pixels, features = self.network.residuals(batch["image"])
        terms = {"residual": pixels.square().mean()}
        if features is not None:
            terms["features"] = self.network.kappa * features.square().mean()
        return terms


class BiGAN:
    """Generator and encoder, and a discriminator of pairs of image and code.

    Args:
        network: E and G, and D as its critic.
        latent: numbers of z.
        objective: by name or as an object.
        critic_steps: steps of D for each step of G and E.
    """

    def __init__(
        self,
        network: Reconstruction,
        latent: int,
        objective: Objective | str = "non_saturating",
        critic_steps: int = 1,
    ) -> None:
        if not isinstance(network.critic, JointDiscriminator):
            raise TypeError(f"the critic is a {type(network.critic).__name__}, expected a JointDiscriminator")
        critic = network.critic
        self.networks = {"generator": network.generator, "encoder": network.encoder, "discriminator": critic}
        self.exports = {"healthy": network}
        self.critic = critic
        self.latent = latent
        self.objective = objectives.objective(objective)
        self.players = (
            Player(
                "discriminator",
                ("discriminator",),
                self.discriminate,
                after_step=lambda: self.objective.constrain(critic),
            ),
            Player("translators", ("generator", "encoder"), self.translate, every(critic_steps)),
        )

    def forward(self, batch: Batch) -> Shared:
        """Pairs of an image with its code, (x, E(x)), and of a code with its image, (G(z), z)."""
        x = batch["image"]
        # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
        z = torch.randn(len(x), self.latent).to(x)
        return {
            "encoded": self.critic.pairs(x, self.networks["encoder"](x)),
            "generated": self.critic.pairs(self.networks["generator"](z), z),
        }

    def discriminate(self, batch: Batch, shared: Shared) -> Terms:
        """D plays: pairs of E are the real ones."""
        del batch
        return discriminator_terms(
            self.objective, self.critic, shared["encoded"].detach(), shared["generated"], "pairs"
        )

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """G and E play."""
        del batch
        return {
            "generator": self.objective.generator(self.critic(shared["generated"])),
            "encoder": self.objective.generator(_reversed(self.objective, self.critic(shared["encoded"]))),
        }


def _reversed(objective: Objective, scores: Tensor) -> Tensor:
    """Scores of a discriminator with real and fake exchanged: 1 and 0 in least squares, signs elsewhere."""
    return 1 - scores if isinstance(objective, LeastSquares) else -scores


def _until(player: Player, end: int) -> Player:
    """A player that plays as before, and no more from an iteration on."""
    return replace(player, plays=lambda iteration: iteration < end and player.plays(iteration))
