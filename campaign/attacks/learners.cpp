#include "learners.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

namespace latchkey::campaign::attacks {
namespace {

float dot(const float* a, const float* b) {
  // Eight sums: the compiler may not reorder one.
  std::array<float, 8> s{};
  unsigned i = 0;
  for (; i + 8 <= features; i += 8) {
    for (unsigned j = 0; j < 8; ++j) s[j] += a[i + j] * b[i + j];
  }
  float r = 0;
  for (; i < features; ++i) r += a[i] * b[i];
  for (const float v : s) r += v;
  return r;
}

/// Adam (Kingma, Ba 2015) over one vector of parameters.
class adam {
 public:
  adam(std::size_t n, float rate) : m_(n), v_(n), rate_(rate) {}
  /// `left`: share of the steps still to come; the rate falls with it to a twentieth.
  void step(float* w, const float* gradient, float left) {
    ++t_;
    const float rate = rate_ * (0.05F + 0.95F * left);
    const float c1 = 1 - std::pow(0.9F, static_cast<float>(t_));
    const float c2 = 1 - std::pow(0.999F, static_cast<float>(t_));
    for (std::size_t i = 0; i < m_.size(); ++i) {
      m_[i] = 0.9F * m_[i] + 0.1F * gradient[i];
      v_[i] = 0.999F * v_[i] + 0.001F * gradient[i] * gradient[i];
      w[i] -= rate * (m_[i] / c1) / (std::sqrt(v_[i] / c2) + 1e-8F);
    }
  }

 private:
  std::vector<float> m_, v_;
  float rate_;
  int t_ = 0;
};

std::vector<float> normals(std::size_t n, float deviation, std::mt19937_64& random) {
  std::vector<float> out(n);
  for (float& x : out) {
    const double u = (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
    x = deviation * static_cast<float>(sim::normal_quantile(u));
  }
  return out;
}

std::vector<std::uint32_t> shuffled(std::size_t n, std::mt19937_64& random) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  for (std::size_t i = n; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

float remaining(unsigned epoch, unsigned epochs) {
  return 1 - static_cast<float>(epoch) / static_cast<float>(epochs);
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

double agreement(const model& m, const crps& data) {
  const std::size_t n = std::min<std::size_t>(data.size(), 5000);
  std::size_t right = 0;
  for (std::size_t i = 0; i < n; ++i) right += m(&data.phi[i * features]) * data.answer[i] > 0;
  return static_cast<double>(right) / static_cast<double>(n);
}

}  // namespace

void transform(std::uint64_t challenge, float* phi) {
  float product = 1;
  phi[sim::puf_stages] = 1;
  for (unsigned i = sim::puf_stages; i-- > 0;) {
    if ((challenge >> i & 1) != 0) product = -product;
    phi[i] = product;
  }
}

void add(crps& to, sim::Silicon& die, const sim::Composition& what, std::uint64_t challenge) {
  to.challenges.push_back(challenge);
  to.phi.resize(to.phi.size() + features);
  transform(challenge, &to.phi[to.phi.size() - features]);
  to.answer.push_back(sim::answer(die, what, 0, challenge) != 0 ? 1.0F : -1.0F);
}

crps collect(sim::Silicon& die, const sim::Composition& what, std::size_t n, unsigned readings,
             std::uint64_t seed) {
  std::mt19937_64 random(seed);
  crps out;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t challenge = random();
    add(out, die, what, challenge);
    if (readings > 1) {
      unsigned ones = out.answer.back() > 0;
      for (unsigned r = 1; r < readings; ++r) {
        ones += static_cast<unsigned>(sim::answer(die, what, 0, challenge));
      }
      out.reliability.push_back(
          std::abs(static_cast<float>(ones) - static_cast<float>(readings) / 2));
    }
  }
  return out;
}

double accuracy(const model& m, const sim::Silicon& die, const sim::Composition& what,
                std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::array<float, features> phi{};
  std::size_t right = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t challenge = random();
    transform(challenge, phi.data());
    right += (m(phi.data()) > 0) == (sim::exact_answer(die, what, 0, challenge) != 0);
  }
  return static_cast<double>(right) / static_cast<double>(n);
}

model logistic_regression(const crps& data, unsigned k, unsigned epochs, unsigned restarts,
                          std::uint64_t seed) {
  const std::size_t batch = std::clamp<std::size_t>(data.size() / 20, 32, 512);
  model best;
  double best_score = -1;
  for (unsigned start = 0; start < restarts; ++start) {
    std::mt19937_64 random(seed + 7919 * start);
    const std::size_t n = std::size_t{k} * features;
    std::vector<float> w = normals(n, k == 1 ? 0.05F : 0.2F, random), g(n), z(k);
    adam optimiser(n, k == 1 ? 0.02F : 0.01F);
    for (unsigned e = 0; e < epochs; ++e) {
      const auto order = shuffled(data.size(), random);
      for (std::size_t from = 0; from + batch <= data.size(); from += batch) {
        std::fill(g.begin(), g.end(), 0.0F);
        for (std::size_t b = 0; b < batch; ++b) {
          const std::size_t i = order[from + b];
          const float* phi = &data.phi[i * features];
          float all = 1;
          for (unsigned j = 0; j < k; ++j) all *= z[j] = dot(&w[std::size_t{j} * features], phi);
          const float error = -data.answer[i] * sigmoid(-data.answer[i] * all);
          for (unsigned j = 0; j < k; ++j) {
            float others = 1;
            for (unsigned l = 0; l < k; ++l) others *= l == j ? 1 : z[l];
            const float scale = error * others / static_cast<float>(batch);
            float* gj = &g[std::size_t{j} * features];
            for (unsigned f = 0; f < features; ++f) gj[f] += scale * phi[f];
          }
        }
        optimiser.step(w.data(), g.data(), remaining(e, epochs));
      }
    }
    model m = [w, k](const float* phi) {
      float all = 1;
      for (unsigned j = 0; j < k; ++j) all *= dot(&w[std::size_t{j} * features], phi);
      return all;
    };
    const double score = agreement(m, data);
    if (score > best_score) {
      best_score = score;
      best = std::move(m);
    }
    if (best_score > 0.9) break;  // it has learned; another beginning adds nothing
  }
  return best;
}

namespace {

struct network {
  std::vector<unsigned> sizes;  // of layers, input and output included
  std::vector<float> w;         // per layer: [out][in], then biases
  static std::size_t parameters(const std::vector<unsigned>& s) {
    std::size_t n = 0;
    for (std::size_t l = 0; l + 1 < s.size(); ++l) n += std::size_t{s[l] + 1} * s[l + 1];
    return n;
  }
  /// Activations of every layer in `a`; returns the last one, linear.
  float forward(const float* phi, std::vector<std::vector<float>>& a) const {
    a[0].assign(phi, phi + features);
    std::size_t at = 0;
    for (std::size_t l = 0; l + 1 < sizes.size(); ++l) {
      const bool last = l + 2 == sizes.size();
      for (unsigned o = 0; o < sizes[l + 1]; ++o) {
        float s = w[at + std::size_t{sizes[l]} * sizes[l + 1] + o];
        const float* row = &w[at + std::size_t{o} * sizes[l]];
        for (unsigned i = 0; i < sizes[l]; ++i) s += row[i] * a[l][i];
        a[l + 1][o] = last ? s : std::tanh(s);
      }
      at += std::size_t{sizes[l] + 1} * sizes[l + 1];
    }
    return a.back()[0];
  }
};

}  // namespace

model perceptron(const crps& data, unsigned k, unsigned epochs, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  auto net = std::make_shared<network>();
  const unsigned wide = std::max(16U, 1U << k), narrow = std::max(8U, 1U << (k - 1));
  net->sizes = {features, narrow, wide, narrow, 1};
  const std::size_t n = network::parameters(net->sizes);
  for (std::size_t l = 0; l + 1 < net->sizes.size(); ++l) {
    const std::size_t in = net->sizes[l], out = net->sizes[l + 1];
    const auto layer = normals(in * out, 1 / std::sqrt(static_cast<float>(in)), random);
    net->w.insert(net->w.end(), layer.begin(), layer.end());
    net->w.resize(net->w.size() + out);
  }
  std::vector<std::vector<float>> a, d;
  for (const unsigned s : net->sizes) {
    a.emplace_back(s);
    d.emplace_back(s);
  }
  std::vector<float> g(n);
  adam optimiser(n, 0.005F);
  const std::size_t batch = std::clamp<std::size_t>(data.size() / 20, 32, 512);
  for (unsigned e = 0; e < epochs; ++e) {
    const auto order = shuffled(data.size(), random);
    for (std::size_t from = 0; from + batch <= data.size(); from += batch) {
      std::fill(g.begin(), g.end(), 0.0F);
      for (std::size_t b = 0; b < batch; ++b) {
        const std::size_t i = order[from + b];
        const float out = net->forward(&data.phi[i * features], a);
        d.back()[0] = -data.answer[i] * sigmoid(-data.answer[i] * out) / static_cast<float>(batch);
        std::size_t end = n;
        for (std::size_t l = net->sizes.size() - 1; l-- > 0;) {
          const std::size_t in = net->sizes[l], outs = net->sizes[l + 1];
          const std::size_t first = end - (in + 1) * outs;
          std::fill(d[l].begin(), d[l].end(), 0.0F);
          for (std::size_t o = 0; o < outs; ++o) {
            const float delta = d[l + 1][o];
            float* gr = &g[first + o * in];
            const float* wr = &net->w[first + o * in];
            for (std::size_t j = 0; j < in; ++j) {
              gr[j] += delta * a[l][j];
              d[l][j] += delta * wr[j];
            }
            g[first + in * outs + o] += delta;
          }
          if (l != 0) {
            for (std::size_t j = 0; j < in; ++j) d[l][j] *= 1 - a[l][j] * a[l][j];
          }
          end = first;
        }
      }
      optimiser.step(net->w.data(), g.data(), remaining(e, epochs));
    }
  }
  auto scratch = std::make_shared<std::vector<std::vector<float>>>(a);
  return [net, scratch](const float* phi) { return net->forward(phi, *scratch); };
}

correlated correlate(const float* phi, const std::vector<float>& target, unsigned epochs,
                     std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::size_t n = target.size();
  std::vector<float> w = normals(features, 1 / std::sqrt(static_cast<float>(features)), random);
  std::vector<float> g(features), u(n);
  adam optimiser(features, 0.01F);
  const std::size_t batch = std::min<std::size_t>(n, 2000);
  correlated out;
  const auto correlation = [&](std::size_t from, std::size_t count, bool gradient) {
    double su = 0, st = 0, suu = 0, stt = 0, sut = 0;
    for (std::size_t i = from; i < from + count; ++i) {
      u[i] = dot(w.data(), phi + i * features);
      const double v = std::abs(u[i]), t = target[i];
      su += v;
      st += t;
      suu += v * v;
      stt += t * t;
      sut += v * t;
    }
    const auto c = static_cast<double>(count);
    const double mu = su / c, mt = st / c;
    const double vu = suu / c - mu * mu, vt = stt / c - mt * mt, cov = sut / c - mu * mt;
    if (vu <= 0 || vt <= 0) return 0.0;
    const double r = cov / std::sqrt(vu * vt);
    if (gradient) {
      std::fill(g.begin(), g.end(), 0.0F);
      for (std::size_t i = from; i < from + count; ++i) {
        const double v = std::abs(u[i]);
        const double dr = ((target[i] - mt) / std::sqrt(vu * vt) - r * (v - mu) / vu) / c;
        const auto s = static_cast<float>(-dr * (u[i] > 0 ? 1 : -1));  // Adam descends
        for (unsigned f = 0; f < features; ++f) g[f] += s * phi[i * features + f];
      }
    }
    return r;
  };
  for (unsigned e = 0; e < epochs; ++e) {
    for (std::size_t from = 0; from + batch <= n; from += batch) {
      correlation(from, batch, true);
      optimiser.step(w.data(), g.data(), remaining(e, epochs));
    }
    float norm = std::sqrt(dot(w.data(), w.data()));
    for (float& x : w) x /= norm;
  }
  out.correlation = correlation(0, n, false);
  std::copy(w.begin(), w.end(), out.w.begin());
  return out;
}

reliability_result reliability_attack(const crps& data, unsigned k, unsigned epochs,
                                      unsigned restarts, std::uint64_t seed) {
  std::vector<correlated> found;
  for (unsigned start = 0; start < restarts; ++start) {
    correlated c = correlate(data.phi.data(), data.reliability, epochs, seed + 104729 * start);
    if (c.correlation < 0.2) continue;  // a beginning that led nowhere
    const auto same = [&](const correlated& other) {
      return std::abs(dot(c.w.data(), other.w.data())) > 0.6F;
    };
    const auto known = std::find_if(found.begin(), found.end(), same);
    if (known == found.end())
      found.push_back(c);
    else if (c.correlation > known->correlation)
      *known = c;
    // A little more than k: local optima are weeded out by their correlation below.
    if (found.size() > 2 * std::size_t{k}) break;
  }
  std::sort(found.begin(), found.end(),
            [](const correlated& a, const correlated& b) { return a.correlation > b.correlation; });
  if (found.size() > k) found.resize(k);
  reliability_result out;
  out.chains_found = static_cast<unsigned>(found.size());
  float sign = 1;
  out.predict = [found, &sign](const float* phi) {
    float all = sign;
    for (const correlated& c : found) all *= dot(c.w.data(), phi) > 0 ? 1.0F : -1.0F;
    return all;
  };
  // Which way round the exclusive or goes, the answers tell.
  sign = agreement(out.predict, data) < 0.5 ? -1.0F : 1.0F;
  const float way = sign;
  out.predict = [found, way](const float* phi) {
    float all = way;
    for (const correlated& c : found) all *= dot(c.w.data(), phi) > 0 ? 1.0F : -1.0F;
    return all;
  };
  return out;
}

}  // namespace latchkey::campaign::attacks
