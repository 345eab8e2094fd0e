"""Prints values of test_peers.py and test_schedule.py. Run it where k-diffusion 4601bf0 is installed.

(git+https://github.com/crowsonkb/k-diffusion at 4601bf0; this project never imports it.)
"""

import torch

if __name__ == "__main__":
    from k_diffusion import sampling  # pyright: ignore[reportMissingImports]

    sigmas = torch.tensor([80.0, 10.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    x = torch.tensor([[80.0, -40.0, 5.0]], dtype=torch.float64)
    model = lambda x, sigma: torch.tanh(x / (1 + sigma[:, None]))
    torch.randn_like = torch.ones_like
    print("karras", sampling.get_sigmas_karras(5, 0.002, 80.0).tolist())
    print("euler", sampling.sample_euler(model, x, sigmas).tolist())
    print("heun", sampling.sample_heun(model, x, sigmas).tolist())
    ones = lambda *_: torch.ones_like(x)
    print("2m", sampling.sample_dpmpp_2m(model, x, sigmas).tolist())
    for eta in (1.0, 0.5):
        print("2m sde", eta, sampling.sample_dpmpp_2m_sde(model, x, sigmas, eta=eta, noise_sampler=ones).tolist())
    print("ancestral", sampling.sample_euler_ancestral(model, x, sigmas, noise_sampler=ones).tolist())
    print("churn", sampling.sample_heun(model, x, sigmas, s_churn=1.2, s_noise=1.1, s_tmin=0.5).tolist())
